"""token list, check, init, pin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.clinic import Clinic, assert_fields_documented
from tests.support.command_line import PIN_VARIABLE, SO_PIN_VARIABLE, CommandLine
from tests.support.softhsm import USER_PIN, WRONG_PIN, SoftHsm, softhsm_module

MODULE = f"pkcs11:?module-path={softhsm_module()}"
SO = ("--so-pin-source", f"env:{SO_PIN_VARIABLE}")
OTHER_PIN = "another-pin-99"
BY_MODULE = {"MEDCRYPT_PKCS11_MODULE": str(softhsm_module())}


@pytest.fixture
def blank(own_softhsm: SoftHsm, tmp_path: Path) -> CommandLine:
    """A machine with one blank token."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return CommandLine(home, own_softhsm, env={**BY_MODULE, "NEW": OTHER_PIN})


def test_list_shows_every_token(clinic: Clinic) -> None:
    document = clinic.run("--json", "token", "list", env=BY_MODULE).json
    assert_fields_documented("token list", document)
    doctor, blank = document["tokens"]
    assert (doctor["label"], doctor["initialized"], doctor["pin_set"], doctor["pin_flags"]) == (
        "doctor",
        True,
        True,
        [],
    )
    assert doctor["uri"].startswith(f"pkcs11:token=doctor;serial={doctor['serial']}?module-path=")
    assert not blank["initialized"]
    text = clinic.run("token", "list", env=BY_MODULE).stdout.splitlines()
    assert text[0].split() == ["LABEL", "SERIAL", "MODEL", "FIRMWARE", "STATE", "URI"]
    assert text[1].split() == ["doctor", doctor["serial"], "SoftHSM", "v2", "-", "ready", doctor["uri"]]


def test_a_module_with_a_problem_is_listed(medcrypt: CommandLine, tmp_path: Path) -> None:
    module = tmp_path / "broken\x1b.so"
    module.write_text("no library")
    done = medcrypt("token", "list", env={"MEDCRYPT_PKCS11_MODULE": str(module)})
    assert "\x1b" not in done.stdout
    found = medcrypt("--json", "token", "list", env={"MEDCRYPT_PKCS11_MODULE": str(module)}).json["tokens"]
    assert [bool(token["problem"]) for token in found] == [True]


def test_check_proves_the_profile_and_leaves_nothing(clinic: Clinic) -> None:
    document = clinic.run("--json", "token", "check", clinic.uri).json
    assert_fields_documented("token check", document)
    assert document["ok"]
    assert (document["profile"], document["missing"]) == ("aes-kw", [])
    assert len(document["steps"]) > 5
    assert all(step["ok"] for step in document["steps"])
    assert clinic.run("--json", "status", "--token", "doctor").json["orphans"] == []


@pytest.mark.parametrize("named", ["by name", "by URI", "by module"])
def test_check_of_the_vaults_token_reads_its_keys_back(clinic: Clinic, named: str, profile: str) -> None:
    named = {"by name": "doctor", "by URI": clinic.uri, "by module": MODULE}[named]
    document = clinic.run("--json", "token", "check", named).json
    assert document["name"] == "doctor"
    kek, audit = document["keys"]
    for key in (kek, audit):
        assert key["problems"] == []
        assert key["claims"]["sensitive"]
        assert key["claims"]["always_sensitive"]
        assert key["claims"]["never_extractable"]
        assert not key["claims"]["extractable"]
        assert key["claims"]["local"]
    assert kek["name"].startswith("medcrypt kek ")
    uses = {use: kek["claims"][use] for use in ("wrap", "unwrap", "derive", "decrypt") if use in kek["claims"]}
    assert (
        uses
        == {
            "aes-kw": {"wrap": True, "unwrap": True, "derive": False, "decrypt": False},
            "p256-hpke": {"unwrap": False, "derive": True, "decrypt": False},
        }[profile]
    )
    assert (audit["claims"]["sign"], audit["claims"]["decrypt"]) == (True, False)
    assert "medcrypt kek" in clinic.run("token", "check", "doctor").stdout


def test_check_of_another_token_leaves_the_vault_out(clinic: Clinic) -> None:
    other = clinic.run.softhsm.make_token("other")
    document = clinic.run("--json", "token", "check", other).json
    assert (document["name"], document["keys"]) == (None, [])


def test_check_says_when_the_vaults_keys_are_gone(clinic: Clinic) -> None:
    clinic.run("--yes", *SO, "token", "init", clinic.uri, "--label", "doctor", env={PIN_VARIABLE: USER_PIN})
    done = clinic.run("--json", "token", "check", clinic.uri, code=3)
    assert [key["problems"] for key in done.json["keys"]] == [["it is not on the token"]] * 2
    assert done.error["error"] == "token-unfit"
    words = clinic.run("token", "check", clinic.uri, code=3)
    assert "not proven" in words.stdout


@pytest.mark.parametrize(
    ("uri", "code", "name"),
    [
        ("pkcs11:token=nowhere", 3, "token-absent"),
        ("nurse", 2, "usage"),
        ("pkcs11:slot-id=0", 2, "usage"),
        ("yubikey:12345678", 3, "token-absent"),
        ("yubikey:mine", 2, "usage"),
        ("tpm:1", 2, "usage"),
    ],
)
def test_tokens_that_cannot_be_checked(clinic: Clinic, uri: str, code: int, name: str) -> None:
    error = clinic.run("--json", "token", "check", uri, code=code, env=BY_MODULE).error
    assert (error["error"], bool(error["hint"])) == (name, True)


def test_init_makes_a_blank_token_ready(blank: CommandLine) -> None:
    done = blank("--json", *SO, "token", "init", MODULE, "--label", "doctor")
    assert_fields_documented("token init", done.json)
    token = done.json["token"]
    assert (token["label"], token["initialized"], token["pin_set"]) == ("doctor", True, True)
    assert blank("token", "check", token["uri"]).stdout.endswith("proven\n")


def test_init_erases_only_what_is_named_and_agreed_to(clinic: Clinic) -> None:
    refused = clinic.run("--json", "--non-interactive", *SO, "token", "init", clinic.uri, "--label", "x", code=2)
    assert "--yes" in refused.error["hint"]
    assert clinic.run("--json", "status", "--token", "doctor").json["verified"]
    wrong = {SO_PIN_VARIABLE: WRONG_PIN}
    error = clinic.run("--json", "--yes", *SO, "token", "init", clinic.uri, "--label", "x", code=4, env=wrong).error
    assert error["error"] == "pin-wrong"
    assert clinic.run("--json", "status", "--token", "doctor").json["verified"]


def test_init_at_a_terminal_asks_for_everything(clinic: Clinic) -> None:
    terminal = clinic.terminal("token", "init", clinic.uri, "--label", "nueva", env={"MEDCRYPT_PIN_SOURCE": ""})
    terminal.expect("Type doctor to go on: ")
    terminal.type("doctor\n")
    terminal.expect("security officer's PIN: ")
    terminal.type("test-so-pin-0815\n")
    for prompt in ("new PIN: ", "new PIN, again: "):
        terminal.expect(prompt)
        terminal.type(OTHER_PIN + "\n")
    assert terminal.finish() == 0
    assert "token nueva is ready" in terminal.seen
    assert OTHER_PIN not in terminal.seen


def test_init_is_stopped_by_another_word(clinic: Clinic) -> None:
    terminal = clinic.terminal("token", "init", clinic.uri, "--label", "nueva")
    terminal.expect("Type doctor to go on: ")
    terminal.type("yes\n")
    assert terminal.finish() == 1
    assert "nothing was changed" in terminal.seen
    assert clinic.run("--json", "status", "--token", "doctor").json["verified"]


def test_new_pins_that_differ_change_nothing(clinic: Clinic) -> None:
    terminal = clinic.terminal("token", "pin", clinic.uri)
    terminal.expect("new PIN of token doctor: ")
    terminal.type("one-pin\n")
    terminal.expect("again: ")
    terminal.type("two-pin\n")
    assert terminal.finish() == 2
    assert clinic.run("audit", "verify").returncode == 0


@pytest.mark.parametrize(("label", "code"), [("", 2), (" doctor", 2), ("x" * 33, 2), ("a\x1bb", 2)])
def test_labels_that_no_token_can_have(blank: CommandLine, label: str, code: int) -> None:
    done = blank(*SO, "token", "init", MODULE, "--label", label, code=code)
    assert "\x1b" not in done.stderr


def test_pin_changes_it(clinic: Clinic) -> None:
    new = {"NEW": OTHER_PIN}
    done = clinic.run("--json", "token", "pin", clinic.uri, "--new-pin-source", "env:NEW", env=new)
    assert_fields_documented("token pin", done.json)
    assert done.json["done"] == "changed"
    clinic.run("audit", "verify", code=4)
    assert clinic.run("audit", "verify", env={PIN_VARIABLE: OTHER_PIN}).returncode == 0
    assert OTHER_PIN not in json.dumps(done.json) + done.stderr


@pytest.mark.parametrize("new", [("--new-pin-source", "env:NEW"), ("--pin-source", "env:NEW")])
def test_pin_unblocks_with_the_officers(clinic: Clinic, new: tuple[str, str]) -> None:
    done = clinic.run("--json", *SO, "token", "pin", clinic.uri, "--unblock", *new, env={"NEW": OTHER_PIN})
    assert done.json["done"] == "unblocked"
    assert clinic.run("audit", "verify", env={PIN_VARIABLE: OTHER_PIN}).returncode == 0


def test_pin_with_a_wrong_old_one(clinic: Clinic) -> None:
    env = {"NEW": OTHER_PIN, PIN_VARIABLE: WRONG_PIN}
    error = clinic.run("--json", "token", "pin", clinic.uri, "--new-pin-source", "env:NEW", code=4, env=env).error
    assert error["error"] == "pin-wrong"
    assert clinic.run("audit", "verify").returncode == 0
