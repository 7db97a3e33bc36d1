"""A session: one unlocked token kept open by a process of its own, for one vault and one person (docs/spec/session.md).

    command ── RemoteToken ── Unix socket ── agent ── Token ── device

``client.py`` is a ``Token`` like any other to everything above it; ``agent.py`` is the process, ``service.py`` what it
does for one connection, ``protocol.py`` what the two say to each other and ``place.py`` where they meet.
``starting.py`` starts an agent, ``ending.py`` leaves word of its end, ``watch.py`` notices a locked screen. No PIN is
kept anywhere here.
"""

from __future__ import annotations
