"""One module for each group of commands: options in, one call of the library, words or one JSON document out."""
