"""Where a vault is kept. The ground floor of ``vault/``: it imports the program's errors and notation, nothing else.

    location.py      what a vault is called, as a value: today a file's path
    store.py         ``Store``, rows in and rows out, as all above sees it; open_store, create_store, open_draft
    sqlite.py        the one backend: a SQLite file, opened, locked, copied, replaced
    sqlite_rows.py   its statements
    rows.py          what a row is
    surroundings.py  what is kept beside a vault: notes, drafts, a re-key's files, a session's place, a lock
    scratch.py       room to work in, which goes with the process
    atomic.py        new files that are whole or not there, for everybody
    filesystem.py    what a vault asks of its disk

In: a name, rows, bytes. Out: the same, and errors by name. Not here: what any row means, and any cryptography. sqlite3
is imported in this folder alone.
"""
