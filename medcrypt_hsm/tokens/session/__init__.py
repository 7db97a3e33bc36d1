"""A session: one unlocked token kept open by a process of its own, for one vault and one person (docs/spec/session.md).

    command ── RemoteToken ── Unix socket ── agent ── Token ── device

    client.py     the command's side: a ``Token`` like any other to everything above it
    start.py      the command that starts an agent; begin.py: the agent's process until it serves
    agent.py      the process that serves and ends; service.py: what it does for one connection
    protocol.py   what the two sides say to each other
    place.py      where they meet: a socket in a directory of this user alone
    deadlines.py  how long a session may still last
    screen.py     notices a locked screen; dbus.py: the signals that tell of it

In: a vault's ``Home``, a token's URI, how its PIN is asked for. Out: a token that stays open. Not here: how the vault
is told of its end (vault/session_end.py). No PIN is kept anywhere here.
"""

from __future__ import annotations
