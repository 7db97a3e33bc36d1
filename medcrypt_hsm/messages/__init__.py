"""From strangers' texts and files to opened messages, and back (docs/spec/messages.md, files.md, imports.md).

In: an open vault; wire text, files, exported chats. Out: opened messages and files; wire text. ``decrypt.py`` is the
main path: ``wire`` finds messages, ``plan.py`` says which key each needs and whether it may be read, ``record.py``
writes down what is about to be shown.

Never imported here: lifecycle. ``wire/`` and the parsers in ``chats/`` know no vault at all.
"""
