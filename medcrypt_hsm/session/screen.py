"""Notices that the screen was locked, the machine is going to sleep, or the desktop session has gone.

In: the buses that are there. Out: ``was_locked``. logind tells of the first two on the system bus; a screen saver that
locks by itself tells on the session bus. A bus that goes away counts as locked: nobody would tell us any more.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from medcrypt_hsm.session.dbus import Bus, BusLost, Signal

SYSTEM, SESSION = "system", "session"
LOGIND = "org.freedesktop.login1"


class Screen:
    """``noticed``: the buses that tell. ``files``: what ``select`` watches for ``was_locked``."""

    def __init__(self) -> None:
        self._buses: dict[str, Bus] = {}
        self._session_path = _session_path(os.environ.get("XDG_SESSION_ID", ""))
        for name, listen in ((SYSTEM, _listen_to_system), (SESSION, _listen_to_session)):
            try:
                bus = listen()
            except BusLost:
                continue
            self._buses[name] = bus

    @property
    def noticed(self) -> list[str]:
        return list(self._buses)

    @property
    def files(self) -> list[int]:
        return [bus.fileno() for bus in self._buses.values()]

    def was_locked(self, ready: Collection[int]) -> bool:
        """Have the buses of the files in ``ready`` told of a lock?"""
        for bus in self._buses.values():
            if bus.fileno() in ready:
                try:
                    if any(map(self._locks, bus.signals())):
                        return True
                except BusLost:
                    return True
        return False

    def _locks(self, signal: Signal) -> bool:
        if signal.member == "Lock":
            return self._session_path in ("", signal.path)  # another user's screen is not ours
        if signal.member == "PrepareForSleep":
            return signal.yes
        return signal.member == "ActiveChanged" and signal.interface.endswith(".ScreenSaver") and signal.yes

    def close(self) -> None:
        for bus in self._buses.values():
            bus.close()


def _listen_to_system() -> Bus:
    bus = Bus(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket")
    try:
        if not bus.call("NameHasOwner", LOGIND):
            raise BusLost  # a bus on which nobody tells
        bus.listen(sender=LOGIND, interface=f"{LOGIND}.Session", member="Lock")
        bus.listen(sender=LOGIND, interface=f"{LOGIND}.Manager", member="PrepareForSleep")
    except BaseException:
        bus.close()
        raise
    return bus


def _listen_to_session() -> Bus:
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not address and runtime and (Path(runtime) / "bus").exists():
        address = f"unix:path={runtime}/bus"
    bus = Bus(address)
    try:
        bus.listen(member="ActiveChanged")
    except BaseException:
        bus.close()
        raise
    return bus


def _session_path(session: str) -> str:
    """Where logind keeps a session: its id, with all but letters and digits, and a digit in front, as ``_xx``."""
    if not session:
        return ""
    escaped = "".join(
        c if c.isascii() and (c.isalpha() or (c.isdigit() and at)) else "".join(f"_{b:02x}" for b in c.encode())
        for at, c in enumerate(session)
    )
    return f"/org/freedesktop/login1/session/{escaped}"
