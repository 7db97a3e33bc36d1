"""Where a vault is kept. The ground floor of ``vault/``: it imports the program's errors and notation, nothing else.

    store.py         ``Store``, rows in and rows out, as all above sees it; open_store, create_store, open_draft
    sqlite.py        the one backend: a SQLite file, opened, read, written, locked
    sqlite_new.py    how such a file comes to be: made, or as a copy that takes another one's place
    rows.py          what a row is; ``Location``: what a vault is called, as a value: today a file's path
    surroundings.py  what is kept beside a vault: notes, drafts, a re-key's files, a session's place, a lock
    scratch.py       temporary storage, which goes with the process
    atomic.py        new files that are whole or not there, for everybody

In: a name, rows, bytes. Out: the same, and errors by name. Not here: what any row means, and any cryptography. sqlite3
is imported in this folder alone.
"""
