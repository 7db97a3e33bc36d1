"""The frames of a session: one form for each value, and nothing else is understood, by either side."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm import errors
from medcrypt_hsm.cli.commands.session import seconds
from medcrypt_hsm.errors import Failed, MedcryptError, SessionEnded, TokenRemoved, UsageError, WrongPin
from medcrypt_hsm.tokens.session import protocol
from medcrypt_hsm.tokens.session.client import Line
from medcrypt_hsm.tokens.session.deadlines import Deadlines, check_times
from medcrypt_hsm.tokens.session.protocol import FIELDS, Op, ProtocolError, decode, encode
from medcrypt_hsm.tokens.session.screen import _session_path
from tests.support.store import beside

FRAMES = st.sampled_from(Op).flatmap(
    lambda op: st.tuples(
        st.just(op), st.lists(st.binary(max_size=40), min_size=FIELDS.get(op, 0), max_size=FIELDS.get(op, 7))
    )
)


@given(FRAMES)
def test_a_frame_comes_back_as_it_was(frame: tuple[Op, list[bytes]]) -> None:
    data = encode(*frame)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert decode(data[4:]) == frame


@given(st.binary(max_size=200))
def test_whatever_is_understood_is_written_that_way(data: bytes) -> None:
    try:
        frame = decode(data)
    except ProtocolError:
        return
    assert encode(*frame)[4:] == data


@given(FRAMES, st.data())
def test_a_frame_that_was_cut_or_lengthened_is_none(frame: tuple[Op, list[bytes]], data: st.DataObject) -> None:
    whole = encode(*frame)[4:]
    wrong = [whole[: data.draw(st.integers(0, len(whole) - 1))], whole + data.draw(st.binary(min_size=1, max_size=9))]
    for other in wrong:
        try:
            found = decode(other)
        except ProtocolError:
            continue
        assert found != frame  # fields of a list that may have any length


def _between(data: bytes) -> socket.socket:
    """A socket on which ``data`` comes, and no more."""
    ours, its = socket.socketpair()
    with its:
        its.sendall(data)
    return ours


def test_lengths_are_bounded_before_anything_is_kept() -> None:
    for length in (0, protocol.LONGEST + 1, 0xFFFFFFFF):
        with _between(length.to_bytes(4, "big") + b"x") as connection, pytest.raises(ProtocolError):
            protocol.receive(connection)
    with pytest.raises(Failed, match="too long"):
        encode(Op.MAC, [b"1234", bytes(protocol.LONGEST)])


def test_an_end_between_frames_is_an_end_and_within_one_an_error() -> None:
    whole = encode(Op.NAMES)
    with _between(whole) as connection:
        assert protocol.receive(connection) == (Op.NAMES, [])
        assert protocol.receive(connection) is None
    for length in range(1, len(whole)):
        with _between(whole[:length]) as connection, pytest.raises(ProtocolError):
            protocol.receive(connection)


def _all(kind: type[MedcryptError]) -> list[type[MedcryptError]]:
    below = [each for sub in kind.__subclasses__() for each in _all(sub)]
    return [kind, *below] if kind.__module__ == errors.__name__ else below


@pytest.mark.parametrize("kind", _all(MedcryptError), ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_what_it_was(kind: type[MedcryptError]) -> None:
    told = protocol.error(decode(protocol.encode_error(kind("what happened", "what to do"))[4:]).fields)
    assert type(told) is kind
    assert isinstance(told, MedcryptError)
    assert (told.message, told.hint) == ("what happened", "what to do")


def test_other_errors_tell_their_kind_and_nothing_else() -> None:
    def through(exc: Exception) -> Exception:
        return protocol.error(decode(protocol.encode_error(exc)[4:]).fields)

    assert through(KeyError("medcrypt kek")).args == ("medcrypt kek",)
    assert type(through(RuntimeError("this key was destroyed"))) is RuntimeError
    wrong = through(WrongPin("no", tries_left=2))
    assert isinstance(wrong, WrongPin)
    assert wrong.tries_left == 2
    unknown = through(OSError("the secret is 4711"))
    assert type(unknown) is Failed
    assert "4711" not in str(unknown)


def test_what_an_agent_says_is_not_believed_blindly() -> None:
    answers = [
        b"",  # it ended
        encode(Op.NAMES),  # no answer
        encode(Op.DONE, [b"1", b"2"]),  # two for one
        b"\0\0\0\5\xffabcd",  # nothing
    ]
    for answer in answers:
        with pytest.raises(SessionEnded):
            _answered(answer)
    with pytest.raises(TokenRemoved, match="gone"):
        _answered(protocol.encode_error(TokenRemoved("gone")))


def _answered(answer: bytes) -> bytes:
    """What a command makes of it that asked for a MAC."""
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(answer)
        its.shutdown(socket.SHUT_WR)
        return Line(ours).one(Op.MAC, b"1234", b"data")


def test_times_are_words_with_bounds() -> None:
    assert [seconds(text, "--idle") for text in ("90s", "15m", "8h")] == [90, 900, 28800]
    for text in ("15", "m", "1.5h", "-3s", "1d", "15 m", "1234567s", "٣m"):
        with pytest.raises(UsageError):
            seconds(text, "--idle")
    check_times(8 * 3600, 24 * 3600)
    for idle, lasting in ((0, 60), (8 * 3600 + 1, 60), (60, 0), (60, 24 * 3600 + 1)):
        with pytest.raises(UsageError):
            check_times(idle, lasting)


def test_time_is_counted_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("medcrypt_hsm.tokens.session.deadlines.ticks", lambda: now[0])
    deadlines = Deadlines(idle=60, lasting=100)
    assert (deadlines.over, deadlines.left) == ("", 60)
    now[0] += 59
    deadlines.used()
    assert (deadlines.over, deadlines.left) == ("", 41)
    now[0] += 41
    assert deadlines.over == "time"
    deadlines = Deadlines(idle=60, lasting=100)
    now[0] += 60
    assert deadlines.over == "idle"


def test_logind_names_sessions_by_escaped_ids() -> None:
    base = "/org/freedesktop/login1/session/"
    assert _session_path("") == ""
    assert [_session_path(text) for text in ("2", "c1", "12", "a-b")] == [
        base + "_32", base + "c1", base + "_312", base + "a_2db",
    ]  # fmt: skip


def test_nobody_answers_where_no_agent_was(tmp_path: Path) -> None:
    from medcrypt_hsm.tokens.session import client

    vault = tmp_path / "vault.db"
    assert client.find(beside(vault)) is None
    assert client.status(beside(vault)) is None
    assert not client.lock(beside(vault), "lock")
    assert not list(tmp_path.iterdir())
