"""A session: one vault kept unlocked by a process of its own, for one person's day (docs/spec/session.md).

    command ── Line ── Unix socket ── agent ── Vault ── token

    client.py     the command's side: a connection, and the day's operations; it loads next to nothing
    remote.py     ``SessionVault``: the same and more, as the library's values
    start.py      the command that starts an agent; begin.py: the agent's process until it serves
    agent.py      the process that serves and ends; desk.py: whose turn it is; service.py: what it does for a connection
    transfer.py   files, from one descriptor to another
    frames.py     what the two sides say to each other; requests.py: what of it is a request; said.py, values.py:
                  errors and values as they travel; templates.json: the sentences that may be said
    place.py      where they meet, beside the vault; whose.py: whose process, in which terminal
    deadlines.py  how long a session may still last
    screen.py     notices a locked screen; dbus.py: the signals that tell of it

In: a vault, a token's PIN, how long. Out: whole operations of the library, each recorded. No operation takes or gives a
key. Imported by nothing below: a re-key calls back to end a session (``OpenOptions``).
"""

from __future__ import annotations
