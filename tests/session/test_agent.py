"""``medcrypt session``: the PIN once for a day's commands, the same log, and an end to every session.

Real agents over real SoftHSM2 tokens; what a command gets that is refused the PIN shows whether it was needed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from medcrypt_hsm import SessionVault
from medcrypt_hsm.errors import SessionEnded
from medcrypt_hsm.session import client, frames
from medcrypt_hsm.session.start import start_session
from tests.support.clinic import PENDING_PATIENT, V1_PATIENT, V2_PATIENT, Clinic, assert_fields_documented
from tests.support.session_desk import NO_PIN, Desk, alive, copies_in_memory, fields
from tests.support.softhsm import USER_PIN


@pytest.fixture
def desk(clinic: Clinic) -> Iterator[Desk]:
    made = Desk(clinic.run, clinic.vault)
    yield made
    made.lock()


def opened(desk: Desk) -> SessionVault:
    found = SessionVault.find(desk.vault)
    assert found is not None
    return found


# Using one


def test_the_pin_is_typed_once(clinic: Clinic, desk: Desk) -> None:
    terminal = clinic.terminal("session", "start", "--anywhere", env={"MEDCRYPT_PIN_SOURCE": ""})
    terminal.expect("PIN of token doctor (SoftHSM v2,")
    terminal.type(f"{USER_PIN}\n")
    assert terminal.finish() == 0, terminal.seen
    assert "the session has begun" in terminal.seen

    wire = desk("encrypt", V2_PATIENT, stdin="Hola").stdout
    assert desk("decrypt", stdin=wire).stdout == "Hola"
    assert desk("--json", "status", "--token", "doctor").json["verified"]
    desk("audit", "verify")
    assert V2_PATIENT in desk("patient", "list").stdout
    assert "nothing is due" in desk("rotate").stdout
    assert desk("audit", "checkpoint").stdout.startswith("medcrypt/")
    desk("patient", "confirm", PENDING_PATIENT, "000000", code=4)
    desk("audit", "anchor", code=4)
    desk("decrypt", "--archive", stdin=wire, code=4)
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
        run("patient", "list", env=without)
        run("patient", "show", V2_PATIENT, env=without)
        run("audit", "show", "--patient", V2_PATIENT, env=without)
        if session:
            desk.lock()
        entries = run("--json", "audit", "show").json["entries"]
        told.append([fields(entry) for entry in entries if not entry["action"].startswith("session.")])
        actions = [entry["action"] for entry in entries]
        assert actions.count("session.start") == actions.count("session.end") == session
    assert told[0] == told[1]


def test_decrypts_json_is_the_same_as_without(clinic: Clinic, desk: Desk) -> None:
    wire = clinic.run("encrypt", V2_PATIENT, stdin="Hola").stdout
    forged = f"{wire[:-12]}{'A' if wire[-12] != 'A' else 'B'}{wire[-11:]}"
    pasted = wire + forged + "[MEDCRYPT:v2:x]"
    without = clinic.run("--json", "decrypt", stdin=pasted, code=None)
    desk.start()
    served = desk("--json", "decrypt", stdin=pasted, code=without.returncode)
    first, *rest = without.json["messages"]
    assert served.json["messages"] == [{**first, "status": "seen"}, *rest]
    assert rest[0]["patient"] is None


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


# Its end


def test_it_ends_unused_and_with_its_time(
    clinic: Clinic, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clinic.copy(tmp_path / "other")
    used = Desk(other.run, other.vault)
    monkeypatch.setenv("SOFTHSM2_CONF", desk.run.softhsm.env["SOFTHSM2_CONF"])
    assert start_session(desk.vault, lambda info: USER_PIN, idle=4, lasting=600)
    unused = desk.process
    monkeypatch.setenv("SOFTHSM2_CONF", used.run.softhsm.env["SOFTHSM2_CONF"])
    assert start_session(used.vault, lambda info: USER_PIN, idle=600, lasting=4)
    with opened(used) as vault, suppress(SessionEnded):
        while True:  # being used does not help
            vault.patients.list()
    desk.wait_for_end(20, unused)
    later = "2026-12-02 12:00:00"
    assert desk.ends(at=later) == ["idle"]
    assert used.ends(at=later) == ["time"]


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
    assert desk.run("decrypt", stdin=wire).stdout == "Hola"  # asks for the PIN by itself
    desk.run("audit", "verify")
    assert desk.ends() == ["note: killed"]
    desk.start()


def test_rekeying_asks_for_the_pin_and_ends_it(desk: Desk) -> None:
    process = desk.start()["process"]
    with opened(desk) as vault:
        desk("--yes", "patient", "erase", V1_PATIENT, code=4)
        assert alive(process)
        desk.run("--yes", "patient", "erase", V1_PATIENT)
        with pytest.raises(SessionEnded):
            vault.encrypt(V2_PATIENT, "Hola")
    desk.wait_for_end(5, process)
    desk("encrypt", V2_PATIENT, stdin="Hola", code=4)
    desk.start()
    desk("encrypt", V2_PATIENT, stdin="Hola")
    desk("audit", "verify")
    desk.lock()
    assert desk.ends() == ["rekey", "lock"]


def test_a_restored_file_is_noticed_before_anything_is_read(desk: Desk, tmp_path: Path) -> None:
    desk.run("vault", "backup", tmp_path / "backup.db")
    process = desk.start()["process"]
    with opened(desk) as vault:
        desk.run("--yes", "vault", "restore", tmp_path / "backup.db")
        with pytest.raises(SessionEnded):
            vault.patients.list()
    desk.wait_for_end(5, process)


# Whose it is


def test_another_terminal_is_asked_for_the_pin(clinic: Clinic, desk: Desk) -> None:
    desk.start()
    wire = desk("encrypt", V2_PATIENT, stdin="Hola").stdout
    elsewhere = {"env": desk.run.environment(env=NO_PIN), "input": wire, "capture_output": True, "text": True}
    done = subprocess.run(desk.run.command("decrypt"), start_new_session=True, **elsewhere)  # type: ignore[call-overload]
    assert done.returncode == 4
    assert "is not given" in done.stderr
    status = subprocess.run(desk.run.command("session", "status"), start_new_session=True, **elsewhere)  # type: ignore[call-overload]
    assert "runs" in status.stdout
    assert desk("decrypt", stdin=wire).stdout == "Hola"
    locked = subprocess.run(desk.run.command("session", "lock"), start_new_session=True, **elsewhere)  # type: ignore[call-overload]
    assert "is locked" in locked.stdout
    assert desk.status is None


def test_what_came_from_elsewhere_is_said_and_does_not_keep_it_alive(desk: Desk) -> None:
    desk.start("--anywhere", "--idle", "1h")
    environment = desk.run.environment(env=NO_PIN)
    before = desk.status["idle_left"]
    for _ in range(2):
        subprocess.run(
            desk.run.command("patient", "list"),
            env=environment,
            start_new_session=True,
            check=True,
            capture_output=True,
        )
    assert desk.status["idle_left"] <= before
    said = desk("patient", "list").stderr
    assert "2 operations came from elsewhere (python: 2)" in said
    assert "elsewhere" not in desk("patient", "list").stderr
    assert [one["elsewhere"] for one in desk.status["last"]] == [True, True, False, False]
    desk.lock()
    (end,) = [entry for entry in desk.entries() if entry["action"] == "session.end"]
    assert end["detail"] == {"why": "lock", "operations": {"patient list": 4}}


def test_archived_months_imports_and_exports_need_a_session_for_them(desk: Desk, tmp_path: Path) -> None:
    desk.start("--archive")
    wire = desk("encrypt", V2_PATIENT, stdin="Hola").stdout
    assert desk("decrypt", "--archive", stdin=wire).stdout == "Hola"
    assert "audit entries are in" in desk("audit", "export", tmp_path / "log.jsonl").stdout
    chat = tmp_path / "_chat.txt"
    chat.write_text(f"[22/11/26, 12:00:00] Paciente: {wire}")
    assert desk("--json", "import", "whatsapp", chat).json["summary"]["seen"] == 1


def test_the_actor_is_the_user_by_the_kernel(desk: Desk) -> None:
    desk.start()
    desk("patient", "list", env={**NO_PIN, "LOGNAME": "dr.garcia", "USER": "dr.garcia"})
    (entry,) = [entry for entry in desk.entries() if entry["action"] == "patient.list"]
    assert entry["actor"].endswith(f"(uid {os.geteuid()})")
    assert "garcia" not in entry["actor"]


def test_no_pin_is_left_in_memory(desk: Desk) -> None:
    desk.start()
    desk("encrypt", V2_PATIENT, stdin="Hola")
    process = desk.process
    assert copies_in_memory(process, USER_PIN.encode()) == 0
    assert copies_in_memory(process, b"medcrypt_hsm.session") > 0  # so it was its memory
    limits = Path(f"/proc/{process}/limits").read_text()
    assert "Max core file size        0                    0" in limits
    environment = Path(f"/proc/{process}/environ").read_bytes()
    assert USER_PIN.encode() not in environment
    assert os.readlink(f"/proc/{process}/cwd") == "/"
    descriptors = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
    assert descriptors.count("/dev/null") == 3


def test_a_thousand_requests_leave_it_small(desk: Desk) -> None:
    desk.start()
    with opened(desk) as vault:
        for number in range(1000):
            vault.encrypt(V2_PATIENT, f"mensaje {number}")
    resident = Path(f"/proc/{desk.process}/statm").read_text().split()[1]
    assert int(resident) * os.sysconf("SC_PAGE_SIZE") < 100 << 20
    assert desk.status["operations"] == {"encrypt": 1000}


def test_a_chat_is_read_in_one_connection(desk: Desk) -> None:
    desk.start()
    with opened(desk) as vault:
        texts = vault.encrypt(V2_PATIENT, "Hola, ¿qué tal?")
        assert [one.text for one in vault.decrypt("\n".join(texts))] == ["Hola, ¿qué tal?"]
        assert vault.patients.show(V2_PATIENT)[0].label == "Paciente Ejemplo"
        assert vault.log.verify().rows
        assert frames.LONG > frames.CHARACTERS
    assert client.find(str(desk.vault.with_name("none.db"))) is None
