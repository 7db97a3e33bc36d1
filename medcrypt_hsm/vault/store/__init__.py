"""Where a vault's rows are (docs/spec/vault.md). Rows in, rows out; all or nothing.

In: the name of a vault, rows. Out: rows in a stated order, and errors in the program's words. What a row means, and any
cryptography, is not known here.

Never imported here: anything but errors and notation.
"""
