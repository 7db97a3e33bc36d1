"""One module a group of commands: options in, one call of the library, words or one JSON document out."""
