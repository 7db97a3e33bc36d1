"""``medcrypt session``: the PIN once for a day's commands, the same log, and an end to every session.

Real agents over real SoftHSM2 tokens; what a command gets that is refused the PIN shows whether it was needed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.api.session import start_session
from medcrypt_hsm.errors import SessionEnded, TokenAbsent, UsageError
from medcrypt_hsm.tokens.session import client, place, protocol
from medcrypt_hsm.tokens.session.protocol import Op, encode
from tests.support.clinic import PENDING_PATIENT, V1_PATIENT, V2_PATIENT, Clinic, assert_fields_documented
from tests.support.session_desk import NO_PIN, NOBODY, Desk, alive, as_user, copies_in_memory, fields
from tests.support.softhsm import USER_PIN, SoftHsm
from tests.support.store import beside

MOMENT = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


@pytest.fixture
def desk(clinic: Clinic) -> Iterator[Desk]:
    made = Desk(clinic.run, clinic.vault)
    yield made
    made.lock()


def opened(desk: Desk) -> Vault:
    def nobody(info: object) -> str:
        raise AssertionError("the PIN was asked for")

    return Vault.open(desk.vault, pin=nobody, session=True, clock=lambda: MOMENT)


# Using one


def test_the_pin_is_typed_once(clinic: Clinic, desk: Desk) -> None:
    terminal = clinic.terminal("session", "start", env={"MEDCRYPT_PIN_SOURCE": ""})
    terminal.expect("PIN of token doctor (SoftHSM v2,")
    terminal.type(f"{USER_PIN}\n")
    assert terminal.finish() == 0, terminal.seen
    assert "the session has begun" in terminal.seen

    wire = desk("encrypt", V2_PATIENT, stdin="Hola").stdout
    assert desk("decrypt", stdin=wire).stdout == "Hola"
    desk("patient", "confirm", PENDING_PATIENT, "000000", code=None)
    assert desk("--json", "status", "--token", "doctor").json["verified"]
    desk("audit", "verify")
    desk("audit", "anchor")
    desk("decrypt", "--no-session", stdin=wire, code=4)
    desk("decrypt", stdin=wire, env=NO_PIN | {"MEDCRYPT_NO_SESSION": "1"}, code=4)

    assert "locked" in desk("session", "lock").stdout
    assert desk("--json", "session", "lock").json["locked"] is False
    assert not (desk.vault.parent / "vault.db-session").exists()
    error = desk("--json", "decrypt", stdin=wire, code=4).error
    assert error["error"] == "pin-needed"


def test_status_and_a_second_start(desk: Desk) -> None:
    began = desk.start("--idle", "90s", "--for", "2h")
    assert (began["running"], began["token"], began["idle"], began["for"]) == (True, "doctor", 90, 7200)
    assert_fields_documented("session start", began)
    again = desk("--json", "session", "start").json
    assert (again["process"], again["idle"]) == (began["process"], 90)
    assert desk("session", "start", "--idle", "90s", "--for", "2h", "--token", "doctor").returncode == 0
    for other in (["--idle", "15m"], ["--for", "1h"], ["--token", "spare"]):
        error = desk("--json", "session", "start", *other, code=2).error
        assert error["hint"] == "end it first: 'medcrypt session lock'"
    desk("session", "start", "--idle", "9h", code=2)
    status = desk("--json", "session", "status").json
    assert_fields_documented("session status", status)
    assert 0 < status["idle_left"] <= 90
    assert_fields_documented("session lock", desk("--json", "session", "lock").json)
    assert_fields_documented("session status", desk("--json", "session", "status").json)


def test_a_wrong_pin_starts_nothing_and_costs_one_try(desk: Desk) -> None:
    error = desk.run("--json", "session", "start", env={"MEDCRYPT_TEST_PIN": "wrong-pin"}, code=4).error
    assert error["error"] == "pin-wrong"
    assert desk.run("--json", "token", "list").json["tokens"][0]["pin_flags"] == ["count-low"]
    assert desk.status is None
    assert not (desk.vault.parent / "vault.db-session").exists()


def test_the_log_is_the_same_as_without(clinic: Clinic, desk: Desk, tmp_path: Path) -> None:
    other = clinic.copy(tmp_path / "other")
    told = []
    for run, session in ((clinic.run, True), (other.run, False)):
        if session:
            desk.start()
        without = NO_PIN if session else {}
        wire = run("encrypt", V2_PATIENT, stdin="Hola", env=without).stdout
        old = run("encrypt", V1_PATIENT, stdin="Hola", env=without).stdout
        forged = f"{wire[:-12]}{'A' if wire[-12] != 'A' else 'B'}{wire[-11:]}"
        run("decrypt", stdin=wire + old + forged, env=without, code=None)
        run("patient", "repair", V2_PATIENT, env=without)
        run("hold", "add", "--patient", V1_PATIENT, "--reason", "ejemplo", env=without)
        run("audit", "anchor", env=without)
        if session:
            desk.lock()
        entries = run("--json", "audit", "show").json["entries"]
        told.append([fields(entry) for entry in entries if not entry["action"].startswith("session.")])
        actions = [entry["action"] for entry in entries]
        assert actions.count("session.start") == actions.count("session.end") == session
    assert told[0] == told[1]


def test_twenty_commands_at_once(desk: Desk) -> None:
    desk.start()
    environment = desk.run.environment(env=NO_PIN)
    commands = [
        subprocess.Popen(
            desk.run.command("encrypt", V2_PATIENT),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    done = [command.communicate(f"mensaje {number}", timeout=60) for number, command in enumerate(commands)]
    assert [command.returncode for command in commands] == [0] * 20, done
    texts = desk("--json", "decrypt", stdin="".join(out for out, _ in done)).json["messages"]
    assert [text["text"] for text in texts] == [f"mensaje {number}" for number in range(20)]
    desk("audit", "verify")


def test_two_vaults_have_two_sessions(clinic: Clinic, desk: Desk, tmp_path: Path) -> None:
    other = clinic.copy(tmp_path / "other")
    second = Desk(other.run, other.vault)
    first, then = desk.start(), second.start()
    assert first["process"] != then["process"]
    wire = desk("encrypt", V2_PATIENT, stdin="Hola").stdout
    desk.lock()
    desk("encrypt", V2_PATIENT, stdin="Hola", code=4)
    second("decrypt", stdin=wire)  # the same keys: it is a copy
    second.lock()
    assert second.ends() == ["lock"]


def test_the_runtime_directory_is_the_better_place(desk: Desk, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    desk.run.env["XDG_RUNTIME_DIR"] = str(runtime)
    desk.start()
    assert not (desk.vault.parent / "vault.db-session").exists()
    (found,) = (runtime / "medcrypt").iterdir()
    assert [oct(path.stat().st_mode & 0o777) for path in (found, found / "socket")] == ["0o700", "0o600"]
    desk("encrypt", V2_PATIENT, stdin="Hola")
    desk("session", "lock")
    assert not found.exists()
    runtime.chmod(0o755)  # anybody's: not trusted
    desk.start()
    assert (desk.vault.parent / "vault.db-session" / "socket").exists()


def test_the_library_asks_for_it(desk: Desk, softhsm: SoftHsm) -> None:
    desk.start()
    with pytest.raises(TokenAbsent):  # this process sees no token of the clinic's
        Vault.open(desk.vault, pin=lambda info: USER_PIN)
    with opened(desk) as vault:
        assert vault.encrypt(V2_PATIENT, "Hola")
        with pytest.raises(UsageError, match="needs the token itself"):
            vault.patients.erase(V2_PATIENT)
        with pytest.raises(UsageError, match="needs the token itself"):
            vault.tokens.sync()


# Its end


def test_it_ends_unused_and_with_its_time(
    clinic: Clinic, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clinic.copy(tmp_path / "other")
    used = Desk(other.run, other.vault)
    for each, idle, lasting in ((desk, 3, 600), (used, 600, 4)):
        monkeypatch.setenv("SOFTHSM2_CONF", each.run.softhsm.env["SOFTHSM2_CONF"])
        assert start_session(each.vault, lambda info: USER_PIN, idle=idle, lasting=lasting, clock=lambda: MOMENT)
    unused, token = desk.process, client.find(beside(used.vault))
    assert token is not None
    with token, suppress(SessionEnded):
        while used.status:  # being used does not help
            token.refuse_gone()
    desk.wait_for_end(6, unused)
    assert desk.ends(at="2026-12-02 12:00:00") == ["idle"]
    assert used.ends(at="2026-12-02 12:00:00") == ["time"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_by_a_signal(desk: Desk, number: signal.Signals) -> None:
    process = desk.start()["process"]
    os.kill(process, number)
    desk.wait_for_end(6, process)
    assert desk.ends() == ["signal"]


def test_it_ends_when_the_token_goes(clinic: Clinic, desk: Desk) -> None:
    process = desk.start()["process"]
    tokens = next(path for path in clinic.run.softhsm.directory.iterdir() if path.is_dir())
    tokens.rename(tokens.with_name("gone"))
    desk.wait_for_end(4, process)
    tokens.with_name("gone").rename(tokens)
    assert desk.ends() == ["note: token"]


def test_killed_while_a_command_uses_it(desk: Desk) -> None:
    desk.start()
    wire = desk("encrypt", V2_PATIENT, stdin="Hola").stdout
    with opened(desk) as vault:
        desk.kill()
        with pytest.raises(SessionEnded) as ended:
            vault.decrypt(wire)
        assert ended.value.exit_code == 3
        assert ended.value.hint == "run the command again; it asks for the PIN"
    assert (desk.vault.parent / "vault.db-session" / "socket").exists()
    assert desk.run("decrypt", stdin=wire).stdout == "Hola"  # asks for the PIN by itself
    assert not (desk.vault.parent / "vault.db-session").exists()
    desk.run("audit", "verify")
    assert desk.ends() == ["note: killed"]
    desk.start()


def test_rekeying_asks_for_the_pin_and_ends_it(desk: Desk) -> None:
    process = desk.start()["process"]
    with opened(desk) as vault:
        desk("--yes", "patient", "erase", V1_PATIENT, code=4)
        assert alive(process)
        desk.run("--yes", "patient", "erase", V1_PATIENT)
        with pytest.raises((SessionEnded, Exception)):
            vault.encrypt(V2_PATIENT, "Hola")
    desk.wait_for_end(5, process)
    desk("encrypt", V2_PATIENT, stdin="Hola", code=4)
    desk.start()
    desk("encrypt", V2_PATIENT, stdin="Hola")
    desk("audit", "verify")
    desk.lock()
    assert desk.ends() == ["rekey", "lock"]


# Others


def test_nobody_elses_process_is_served(finished_clinic: Clinic) -> None:
    """In a directory that others can enter, so that the socket's mode and directory are out of the way."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        clinic = finished_clinic.copy(Path(name) / "clinic")
        desk = Desk(clinic.run, clinic.vault)
        desk.start()
        for path in (Path(name) / "clinic", clinic.vault.parent, clinic.vault.parent / "vault.db-session"):
            path.chmod(0o755)
        there = clinic.vault.parent / "vault.db-session" / "socket"
        there.chmod(0o666)
        hello = encode(Op.HELLO, [bytes((protocol.VERSION,)), b"0.1.0"])
        ask = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(bytes.fromhex(sys.argv[2])); sys.exit(len(s.recv(9)))"
        )
        for user, code in ((os.geteuid(), 9), (NOBODY, 0)):
            done = subprocess.run(
                as_user(user, "/usr/bin/python3", "-c", ask, str(there), hello.hex()), capture_output=True, text=True
            )
            # Closed before or after the first word: nothing was answered.
            assert done.returncode == code or "Broken pipe" in done.stderr or "reset" in done.stderr, done
            assert code == 0 or done.returncode == code
        assert client.status(beside(clinic.vault)) is None, "a directory that others can enter is not trusted"
        there.parent.chmod(0o700)
        desk.lock()


def test_an_agent_of_another_user_is_not_believed(tmp_path: Path) -> None:
    vault = tmp_path / "vault.db"
    taken = place.take(beside(vault))
    assert taken is not None
    assert place.take(beside(vault)) is None, "one agent for a vault"
    ours = place.connect(beside(vault))
    assert ours is not None
    with ours:
        assert place.peer_is_us(ours)
    other = subprocess.run(
        as_user(NOBODY, "true"), check=True
    )  # what follows stands for a directory that another user has made
    assert other.returncode == 0
    before = os.stat(taken.directory)
    try:
        subprocess.run(as_user(0, "chown", str(NOBODY), taken.directory), check=True)
        assert place.connect(beside(vault)) is None
    finally:
        subprocess.run(as_user(0, "chown", str(before.st_uid), taken.directory), check=True)
    target = tmp_path / "elsewhere"
    taken.directory.rename(target)
    taken.directory.symlink_to(target)
    assert place.connect(beside(vault)) is None, "links are not followed"
    taken.directory.unlink()
    target.rename(taken.directory)
    taken.close()
    assert list(tmp_path.iterdir()) == []


def test_nonsense_ends_a_connection_and_nothing_else(desk: Desk) -> None:
    desk.start()
    hello = encode(Op.HELLO, [bytes((protocol.VERSION,)), b"0.1.0"])
    nonsense = [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        encode(Op.SIGN, [b"medcrypt audit", b""]),  # before the greeting
        encode(Op.HELLO, [b"\x63", b"0.1.0"]),
        encode(Op.HELLO, [bytes((protocol.VERSION,)), b"0.0.9"]),
        hello + encode(Op.DONE),
        hello + encode(Op.OPEN_MANY, [b"1"]) + encode(Op.OPEN_MANY, [b"1", b"2"]),
        hello + encode(Op.MAC, [b"12345", b""]),
        hello + encode(Op.SIGN, [b"\xff", b""]),
    ]
    for data in nonsense:
        connection = place.connect(beside(desk.vault))
        assert connection is not None
        with connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
    stalled = [place.connect(beside(desk.vault)) for _ in range(5)]  # that never say anything
    assert desk("encrypt", V2_PATIENT, stdin="Hola").returncode == 0
    for waiting in stalled:
        assert waiting is not None
        waiting.close()


def test_handles_are_a_connections_own_and_end_with_it(desk: Desk) -> None:
    desk.start()
    with opened(desk) as vault:
        remote = client.find(beside(desk.vault))
        assert remote is not None
        with remote:
            for number in range(1, 9):
                with pytest.raises(RuntimeError):
                    remote._line.ask(Op.MAC, number.to_bytes(4, "big"), b"")
        assert vault.encrypt(V2_PATIENT, "Hola")


def test_no_pin_is_left_in_memory(desk: Desk) -> None:
    desk.start()
    desk("encrypt", V2_PATIENT, stdin="Hola")
    process = desk.process
    assert copies_in_memory(process, USER_PIN.encode()) == 0
    assert copies_in_memory(process, b"medcrypt_hsm.agent") > 0  # so it was its memory
    limits = Path(f"/proc/{process}/limits").read_text()
    assert "Max core file size        0                    0" in limits
    environment = Path(f"/proc/{process}/environ").read_bytes()
    assert USER_PIN.encode() not in environment
    assert os.readlink(f"/proc/{process}/cwd") == "/"
    descriptors = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
    assert not [name for name in descriptors if "vault.db" in name and "vault.db-session" not in name]
    assert descriptors.count("/dev/null") == 3
