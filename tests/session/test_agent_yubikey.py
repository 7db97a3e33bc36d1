"""A session with a YubiKey: exclusive, pulled, touched."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.command_line import PIN_VARIABLE, CommandLine
from tests.support.ready_yubikey import PIN, ready
from tests.support.session_desk import Desk
from tests.support.softhsm import softhsm_module
from tests.support.yubikey import VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]
PATIENT = "EXP-00417"


@pytest.fixture
def desk(medcrypt: CommandLine) -> Iterator[Desk]:
    vault = medcrypt.home / "vault" / "vault.db"
    vault.parent.mkdir(mode=0o700)
    medcrypt.env |= {
        "MEDCRYPT_PKCS11_MODULE": str(softhsm_module()),
        PIN_VARIABLE: PIN,
        "MEDCRYPT_VAULT": str(vault),
    }
    made = Desk(medcrypt, vault)
    yield made
    made.lock()


def test_a_day_with_a_yubikey(desk: Desk, yubikey: YubiKeys) -> None:
    key = ready(yubikey("5.7.4"))
    desk.run("vault", "create", "--token", f"doctor={key.uri}", "--touch", "always")
    desk.run("patient", "add", PATIENT, "--unconfirmed")
    process = desk.start()["process"]
    touched = key.touches()
    done = desk("encrypt", PATIENT, stdin="Hola")
    assert desk("decrypt", stdin=done.stdout).stdout == "Hola"
    assert key.touches() == touched + 2, "the root key still wants its finger for each command"

    key.finger(0.8)
    assert "touch token" in desk("encrypt", PATIENT, stdin="Hola").stderr
    key.finger()

    # Another command that wants the key itself: the session makes way for it.
    done = desk.run("--no-session", "encrypt", PATIENT, stdin="Hola")
    assert "locked the session" in done.stderr
    desk.wait_for_end(5, process)

    process = desk.start()["process"]
    key.pull()
    desk.wait_for_end(4, process)
    key.insert()
    assert desk.ends() == ["note: exclusive", "note: token"]


def test_a_finger_that_is_waited_for_keeps_nothing_unlocked(desk: Desk, yubikey: YubiKeys) -> None:
    key = ready(yubikey("5.4.3", touch_timeout=8))
    desk.run("vault", "create", "--token", f"doctor={key.uri}", "--touch", "always")
    desk.run("patient", "add", PATIENT, "--unconfirmed")
    process = desk.start()["process"]
    key.finger(None)
    waiting = subprocess.Popen(
        desk.run.command("encrypt", PATIENT),
        env=desk.run.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    key.until_blinking()
    desk.lock()
    desk.wait_for_end(6, process)
    waiting.kill()
    waiting.communicate()


def test_pairing_goes_through_the_session_with_the_pin(desk: Desk, yubikey: YubiKeys) -> None:
    key = ready(yubikey("5.7.4"))
    desk.run("vault", "create", "--token", f"doctor={key.uri}")
    process = desk.start()["process"]
    assert desk("--json", "patient", "add", PATIENT, code=4).error["error"] == "pin-needed"
    wrong = {PIN_VARIABLE: "000000"}
    assert desk.run("--json", "patient", "add", PATIENT, env=wrong, code=4).error["error"] == "pin-wrong"
    assert desk.run("--json", "patient", "add", PATIENT, "--unconfirmed").json["payload"]
    assert desk("encrypt", PATIENT, stdin="Hola").returncode == 0
    assert desk.process == process, "the session goes on"
