"""The command line on a YubiKey: list, init, pin, check, and a line that asks for a finger."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest

from tests.support.clinic import Terminal, assert_fields_documented
from tests.support.command_line import PIN_VARIABLE, CommandLine
from tests.support.pcscd import Pcscd
from tests.support.ready_yubikey import PIN, PUK, WRONG, YKMAN, OtherProgram, ready
from tests.support.softhsm import softhsm_module
from tests.support.yubikey import VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]
BY_MODULE = {"MEDCRYPT_PKCS11_MODULE": str(softhsm_module())}
NEW_PIN = "246810"
PUK_SOURCE = ("--puk-source", "env:PUK")


@pytest.fixture
def doctor(medcrypt: CommandLine) -> CommandLine:
    """Whoever types has PIN and PUK in the environment, and the vault in the home directory."""
    vault = str(medcrypt.home / "vault" / "vault.db")
    medcrypt.env |= {**BY_MODULE, PIN_VARIABLE: PIN, "PUK": PUK, "NEW": NEW_PIN, "MEDCRYPT_VAULT": vault}
    return medcrypt


def at_a_terminal(doctor: CommandLine, *arguments: str, **env: str) -> Terminal:
    return Terminal(doctor.command(*arguments), doctor.environment(env=env), doctor.home, 100, None)


def test_list_shows_it_with_its_firmware(doctor: CommandLine, yubikey: YubiKeys) -> None:
    key = yubikey("5.7.4")
    document = doctor("--json", "token", "list").json
    assert_fields_documented("token list", document)
    found = document["tokens"][-1]
    assert (found["uri"], found["firmware"], found["initialized"], found["pin_tries"]) == (key.uri, "5.7.4", False, 3)
    ready(key)
    lines = doctor("token", "list").stdout.splitlines()
    assert lines[0].split() == ["LABEL", "SERIAL", "MODEL", "FIRMWARE", "STATE", "URI"]
    assert re.split(r"  +", lines[-1]) == [
        f"YubiKey {key.serial}",
        str(key.serial),
        "YubiKey 5A",
        "5.7.4",
        "ready",
        key.uri,
    ]


def test_list_names_who_holds_it(doctor: CommandLine, yubikey: YubiKeys) -> None:
    key = yubikey()
    with OtherProgram(key) as other:
        found = doctor("--json", "token", "list").json["tokens"][-1]
    assert key.reader_name in found["problem"]
    assert str(other.id) in found["problem"]


def test_list_without_a_service_says_nothing_of_it(doctor: CommandLine, pcscd: Pcscd) -> None:
    pcscd.stop()
    done = doctor("token", "list")
    assert done.stderr == ""
    assert "YubiKey" not in done.stdout


@pytest.mark.parametrize("firmware", ["4.3.5", "5.4.3", "5.7.4"])
def test_init_makes_one_ready(doctor: CommandLine, yubikey: YubiKeys, firmware: str) -> None:
    key = yubikey(firmware)
    done = doctor("--json", *PUK_SOURCE, "token", "init", key.uri)
    assert_fields_documented("token init", done.json)
    assert (done.json["token"]["uri"], done.json["token"]["pin_tries"]) == (key.uri, 5)
    assert PIN not in done.stdout + done.stderr
    assert PUK not in done.stdout + done.stderr
    seen = subprocess.run([YKMAN, "piv", "info"], capture_output=True, text=True, check=True).stdout
    assert "PIN tries remaining:" in seen
    assert re.search(r"PIN tries remaining: +5", seen)
    assert "Management key is stored on the YubiKey, protected by PIN" in seen
    assert doctor("token", "check", key.uri).stdout.endswith("proven\n")


def test_init_at_a_terminal_asks_for_puk_and_pin(doctor: CommandLine, yubikey: YubiKeys) -> None:
    key = yubikey()
    terminal = at_a_terminal(doctor, "token", "init", key.uri, MEDCRYPT_PIN_SOURCE="")
    for prompt, secret in (("new PUK", PUK), ("new PUK, again", PUK), ("new PIN", PIN), ("new PIN, again", PIN)):
        terminal.expect(f"{prompt}: ")
        terminal.type(secret + "\n")
    assert terminal.finish() == 0
    assert f"token YubiKey {key.serial} is ready: {key.uri}" in terminal.seen
    assert PIN not in terminal.seen
    assert PUK not in terminal.seen


def test_init_refuses_without_asking(doctor: CommandLine, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    nobody = {"MEDCRYPT_PIN_SOURCE": ""}
    error = doctor("--json", "--non-interactive", "token", "init", key.uri, code=3, env=nobody).error
    assert "in use already" in error["message"]
    error = doctor("--json", "--non-interactive", "token", "init", key.uri, "--label", "x", code=2, env=nobody).error
    assert "label" in error["message"]
    pkcs11 = f"pkcs11:?module-path={softhsm_module()}"
    error = doctor("--json", "--non-interactive", "token", "init", pkcs11, code=2, env=nobody).error
    assert "--label" in error["hint"]


@pytest.mark.parametrize(("puk", "pin"), [("1234", PIN), (PUK, "1234"), (PUK, "123456"), ("12345678", PIN)])
def test_init_with_unfit_secrets(doctor: CommandLine, yubikey: YubiKeys, puk: str, pin: str) -> None:
    key = yubikey()
    done = doctor("--json", *PUK_SOURCE, "token", "init", key.uri, code=2, env={"PUK": puk, PIN_VARIABLE: pin})
    assert done.error["error"] == "usage"
    assert (key.state.pin.left, key.state.pin.value) == (3, b"123456\xff\xff")


def test_pin_changes_it(doctor: CommandLine, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    done = doctor("--json", "token", "pin", key.uri, "--new-pin-source", "env:NEW")
    assert_fields_documented("token pin", done.json)
    assert done.json["done"] == "changed"
    error = doctor("--json", "token", "check", key.uri, code=4).error
    assert (error["error"], error["tries_left"]) == ("pin-wrong", 4)
    doctor("token", "check", key.uri, env={PIN_VARIABLE: NEW_PIN})


def test_wrong_pins_down_to_the_lock_and_the_puk(doctor: CommandLine, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    wrong = {PIN_VARIABLE: WRONG}
    for left in (4, 3, 2, 1):
        done = doctor("--json", "token", "check", key.uri, code=4, env=wrong)
        assert done.error["tries_left"] == left
    assert f"a wrong PIN was entered before; token YubiKey {key.serial} has 2 tries left" in done.stderr
    assert doctor("--json", "token", "check", key.uri, code=4).error["error"] == "pin-last-try"
    done = doctor("--json", "--last-try", "token", "check", key.uri, code=4, env=wrong)
    assert done.error["error"] == "pin-locked"
    assert "PUK" in done.error["hint"]
    assert "--unblock" in doctor("--json", "token", "check", key.uri, code=4).error["hint"]
    assert doctor("--json", "token", "list").json["tokens"][-1]["pin_flags"] == ["locked"]
    unblock = ("token", "pin", key.uri, "--unblock", "--new-pin-source", "env:NEW")
    nobody = doctor("--json", "--non-interactive", *unblock, code=4).error
    assert "--puk-source" in nobody["hint"]
    assert doctor("--json", *PUK_SOURCE, *unblock, code=4, env={"PUK": "00000000"}).error["tries_left"] == 4
    assert doctor("--json", *PUK_SOURCE, *unblock).json["done"] == "unblocked"
    doctor("token", "check", key.uri, env={PIN_VARIABLE: NEW_PIN})


def test_the_prompt_names_the_key_once(doctor: CommandLine, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    terminal = at_a_terminal(doctor, "token", "check", key.uri, MEDCRYPT_PIN_SOURCE="")
    terminal.expect(f"PIN of token YubiKey {key.serial} (YubiKey 5A): ")
    with OtherProgram(key):  # nobody holds it while the person thinks
        pass
    terminal.type(PIN + "\n")
    assert terminal.finish() == 0


# A finger


@pytest.fixture
def touched(doctor: CommandLine, yubikey: YubiKeys) -> VirtualYubiKey:
    """The vault's key, whose root key waits for a finger each time."""
    key = ready(yubikey(touch_timeout=3.0))
    doctor("vault", "create", "--token", f"doctor={key.uri}", "--touch", "always")
    return key


def test_a_finger_is_asked_for_with_a_countdown(doctor: CommandLine, touched: VirtualYubiKey) -> None:
    touched.finger(2.5)
    terminal = at_a_terminal(doctor, "status", "--token", "doctor")
    terminal.expect(f"touch token YubiKey {touched.serial} now: 15 s")
    terminal.expect(f"touch token YubiKey {touched.serial} now: 14 s")
    assert terminal.finish() == 0
    assert "\r\x1b[K" in terminal.seen  # and the line is gone


def test_without_a_terminal_one_line_asks(doctor: CommandLine, touched: VirtualYubiKey) -> None:
    touched.finger(1)
    done = doctor("--json", "--quiet", "status", "--token", "doctor")
    line = f"touch token YubiKey {touched.serial} now (within 15 seconds)\n"
    assert done.stderr == line
    assert done.json["verified"]


def test_nobody_is_asked_where_the_answer_is_there_at_once(doctor: CommandLine, touched: VirtualYubiKey) -> None:
    touched.finger()
    assert "touch" not in doctor("--json", "status", "--token", "doctor").stderr


def test_a_finger_that_does_not_come(doctor: CommandLine, touched: VirtualYubiKey) -> None:
    touched.finger(None)
    error = doctor("--json", "status", "--token", "doctor", code=3).error
    assert error["error"] == "not-touched"
    assert "touch" in error["hint"]
    touched.finger()
    assert json.loads(doctor("--json", "status", "--token", "doctor").stdout)["verified"]
    assert touched.state.pin.left == 5


# What is loaded


def loaded(doctor: CommandLine, *arguments: str, code: int | None = 0) -> set[str]:
    """The top-level names of all modules that a run of the program imports."""
    command = doctor.command(*arguments)
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], env=doctor.environment(), capture_output=True, text=True
    )
    assert code is None or done.returncode == code, done.stderr
    return {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


def test_yubikit_is_loaded_only_for_a_yubikey(doctor: CommandLine, pcscd: Pcscd) -> None:
    of_yubikeys = {"yubikit", "ykman", "smartcard", "fido2"}
    softhsm = doctor.softhsm.make_token("plain")
    assert not loaded(doctor, "token", "check", softhsm, code=None) & of_yubikeys
    assert not loaded(doctor, "--version") & of_yubikeys
    pcscd.stop()
    assert loaded(doctor, "token", "list") & of_yubikeys == {"smartcard"}  # readers are looked for
