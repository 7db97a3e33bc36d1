"""A locked screen ends a session: told on real buses, by whoever has the names of logind and of a screen saver."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.session.dbus import _DESTINATION, _INTERFACE, _MEMBER, _PATH, SIGNAL, Bus, BusLost
from medcrypt_hsm.session.screen import LOGIND
from tests.support.clinic import Clinic
from tests.support.session_desk import DBus, Desk, wait


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[DBus]:
    made = DBus(tmp_path)
    yield made
    made.stop()


def speaker(bus: DBus, name: str) -> Bus:
    """Somebody who has that name on the bus."""
    made = Bus(bus.address)
    serial = made.send(1, {_PATH: "/org/freedesktop/DBus", _INTERFACE: "org.freedesktop.DBus", _MEMBER: "RequestName",
                           _DESTINATION: "org.freedesktop.DBus"}, name, 0)  # fmt: skip
    assert serial
    wait(lambda: made.call("NameHasOwner", name), 5)
    return made


def say(by: Bus, path: str, interface: str, member: str, *arguments: str | bool) -> None:
    by.send(SIGNAL, {_PATH: path, _INTERFACE: interface, _MEMBER: member}, *arguments)


SESSIONS = "/org/freedesktop/login1/session"
MINE = f"{SESSIONS}/_37"
SAVER = "/org/gnome/ScreenSaver", "org.gnome.ScreenSaver", "ActiveChanged"


@pytest.mark.parametrize(
    ("what", "first", "then"),
    [
        ("logind", (f"{SESSIONS}/_38", f"{LOGIND}.Session", "Lock"), (MINE, f"{LOGIND}.Session", "Lock")),
        ("sleep", ("/org/freedesktop/login1", f"{LOGIND}.Manager", "PrepareForSleep", False),
         ("/org/freedesktop/login1", f"{LOGIND}.Manager", "PrepareForSleep", True)),
        ("saver", (*SAVER, False), (*SAVER, True)),
        ("no bus any more", (*SAVER, False), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_session_ends_with_the_screen(
    clinic: Clinic, bus: DBus, what: str, first: tuple[str | bool, ...], then: tuple[str | bool, ...] | None
) -> None:
    desk = Desk(clinic.run, clinic.vault)
    logind = speaker(bus, LOGIND)
    desk.run.env |= {
        "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
        "DBUS_SESSION_BUS_ADDRESS": bus.address,
        "XDG_SESSION_ID": "7",
    }
    began = desk.start()
    assert began["screen_lock"] == ["system", "session"]
    stranger = Bus(bus.address)
    say(stranger, MINE, f"{LOGIND}.Session", "Lock")  # without logind's name
    say(logind, *first)  # type: ignore[arg-type]
    logind.call("NameHasOwner", LOGIND)  # the bus has delivered them
    assert desk.status["running"]
    if then is None:
        bus.stop()
    else:
        say(logind, *then)  # type: ignore[arg-type]
    desk.wait_for_end(6, began["process"])
    logind.close()
    stranger.close()
    assert desk.ends() == ["screen"]


def test_where_nothing_tells_the_person_is_told(clinic: Clinic) -> None:
    desk = Desk(clinic.run, clinic.vault)
    desk.run.env |= {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent", "DBUS_SESSION_BUS_ADDRESS": "tcp:host=x"}
    done = desk.run("session", "start")
    assert "warning: nothing tells here when the screen is locked" in done.stderr
    assert "NOT noticed" in done.stdout
    desk.lock()


def test_addresses_that_are_none(tmp_path: Path) -> None:
    for address in ("", "unix:", "unix:path=", "tcp:host=localhost,port=1", f"unix:path={tmp_path}/none;autolaunch:"):
        with pytest.raises(BusLost):
            Bus(address)


@given(st.binary(max_size=120))
def test_a_bus_that_talks_nonsense_is_lost(nonsense: bytes) -> None:
    """Whatever comes after the greeting: signals, silence until more comes, or BusLost."""
    ours, its = socket.socketpair()
    with ours, its:
        bus = Bus.__new__(Bus)
        bus._socket, bus._buffer, bus._serial = ours, bytearray(), 0
        its.sendall(nonsense + b"x")
        with suppress(BusLost):
            assert all(isinstance(signal.yes, bool) for signal in bus.signals())


def test_both_orders_of_bytes_are_read() -> None:
    for order, mark in (("<", b"l"), (">", b"B")):

        def string(code: int, kind: bytes, text: bytes, order: str = order) -> bytes:
            data = bytes((code, 1)) + kind + b"\0" + struct.pack(order + "I", len(text)) + text + b"\0"
            return data + bytes(-len(data) % 8)

        head = string(_PATH, b"o", b"/a") + string(_MEMBER, b"s", b"Lock") + string(_INTERFACE, b"s", b"i.Session")
        head += bytes((8, 1)) + b"g\0\1b\0"
        body = struct.pack(order + "I", 0)
        message = mark + bytes((SIGNAL, 0, 1)) + struct.pack(order + "III", len(body), 7, len(head)) + head
        message += bytes(-len(message) % 8) + body
        ours, its = socket.socketpair()
        with ours, its:
            bus = Bus.__new__(Bus)
            bus._socket, bus._buffer, bus._serial = ours, bytearray(), 0
            its.sendall(message + message[:20])
            assert list(bus.signals()) == [("/a", "i.Session", "Lock", False)]
            threading.Thread(target=its.sendall, args=(message[20:],)).start()
            assert len(list(bus.signals())) == 1
