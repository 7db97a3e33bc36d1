"""vault add-token, remove-token, policy, and status of several tokens, as a person meets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clinic import PIN_LINE, V2_PATIENT, Clinic, assert_fields_documented
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import WRONG_PIN, softhsm_module
from tests.support.yubikey import VirtualYubiKey

SPARE_PIN = "otro-pin-0815"
SPARE = f"pkcs11:token=spare?module-path={softhsm_module()}"


@pytest.fixture
def spare(clinic: Clinic) -> Clinic:
    """The clinic with a spare token whose PIN is another; both PINs are in the environment."""
    clinic.run.softhsm.make_token("spare", pin=SPARE_PIN)
    sources = f"doctor=env:{PIN_VARIABLE} spare=env:SPARE_PIN"
    clinic.run.env |= {"SPARE_PIN": SPARE_PIN, "MEDCRYPT_PIN_SOURCE": sources}
    return clinic


def add(clinic: Clinic, *more: str, code: int = 0) -> None:
    clinic.run("vault", "add-token", f"spare={SPARE}", *more, code=code)


class TestAddToken:
    @pytest.mark.parametrize("new_profile", ["aes-kw", "p256-hpke"])
    def test_each_token_is_enough(self, spare: Clinic, new_profile: str) -> None:
        done = spare.run("--json", "vault", "add-token", f"spare={SPARE}", "--profile", new_profile)
        assert_fields_documented("vault add-token", done.json)
        token = done.json["token"]
        assert (token["name"], token["profile"], token["touch"]) == ("spare", new_profile, "never")
        assert token["attestation"] == "token-claimed"
        assert "audit public-key" in done.stderr
        wires = [spare.run("encrypt", V2_PATIENT, "--token", n, stdin=n).stdout for n in ("doctor", "spare")]
        for name in ("spare", "doctor"):
            assert name in spare.run("decrypt", "--token", name, stdin="".join(wires)).stdout
            assert spare.run("--json", "audit", "verify", "--token", name).json["tokens"] == ["doctor", "spare"]
        keys = spare.run("--json", "audit", "public-key").json["keys"]
        assert [key["token"] for key in keys] == ["doctor", "spare"]

    def test_the_one_in_use_is_shown(self, spare: Clinic) -> None:
        add(spare)
        for name in ("doctor", "spare"):
            status = spare.run("--json", "status", "--token", name)
            assert_fields_documented("status", status.json)
            assert status.json["in_use"] == name
            lines = spare.run("status", "--token", name).stdout.splitlines()
            assert [", in use" in line for line in lines if line.startswith("token:")] == [
                name == "doctor",
                name == "spare",
            ]
        assert spare.run("--json", "status").json["in_use"] is None

    def test_the_pins_of_both_are_asked_for_by_name(self, spare: Clinic) -> None:
        terminal = spare.terminal("vault", "add-token", f"spare={SPARE}", env={"MEDCRYPT_PIN_SOURCE": "prompt"})
        terminal.expect("PIN of token doctor")
        terminal.type(PIN_LINE)
        terminal.expect("PIN of token spare")
        terminal.type(SPARE_PIN + "\n")
        assert terminal.finish() == 0
        assert SPARE_PIN not in terminal.seen

    def test_a_wrong_pin_of_the_new_token(self, spare: Clinic) -> None:
        refused = spare.run("--json", "vault", "add-token", f"spare={SPARE}", env={"SPARE_PIN": WRONG_PIN}, code=4)
        assert refused.error["error"] == "pin-wrong"
        assert spare.run("--json", "status").json["problems"] == []
        add(spare)

    @pytest.mark.parametrize(
        ("named", "code", "words"),
        [
            ("doctor=" + SPARE, 2, "has, or had, a token called doctor"),
            ("again=pkcs11:token=doctor", 2, "registered already: it is doctor"),
            ("spare=pkcs11:token=nowhere", 3, "no token fits"),
            ("spare", 2, "a short name"),
            ("a b=" + SPARE, 2, "is no name for a token"),
        ],
    )
    def test_what_cannot_be_added(self, spare: Clinic, named: str, code: int, words: str) -> None:
        before = spare.run("--json", "status").json
        module = {"MEDCRYPT_PKCS11_MODULE": str(softhsm_module())}
        refused = spare.run("--json", "vault", "add-token", named, code=code, env=module).error
        assert words in refused["message"]
        assert refused["hint"]
        assert spare.run("--json", "status").json == before

    def test_below_the_policy(self, spare: Clinic, tmp_path: Path) -> None:
        spare.run("vault", "policy", "--require-attestation", "device-attested")
        refused = spare.run("--json", "vault", "add-token", f"spare={SPARE}", code=6).error
        assert refused["error"] == "refused"
        assert "--roots" in refused["hint"]
        problems = spare.run("--json", "status", "--token", "doctor").json["problems"]
        assert problems == ["token doctor is token-claimed, below what the policy requires: device-attested"]

    def test_roots_that_are_none(self, spare: Clinic, tmp_path: Path) -> None:
        assert "hint" in spare.run("--json", "vault", "add-token", f"spare={SPARE}", "--roots", tmp_path, code=2).error


class TestRemoveToken:
    def test_neither_the_last_one_nor_the_one_in_use(self, spare: Clinic) -> None:
        assert "only token" in spare.run("vault", "remove-token", "doctor", "--yes", code=6).stderr
        add(spare)
        assert "name another with --token" in spare.run("vault", "remove-token", "doctor", "--yes", code=6).stderr

    def test_one_that_is_there(self, spare: Clinic) -> None:
        add(spare)
        done = spare.run("--json", "--yes", "vault", "remove-token", "spare")
        assert_fields_documented("vault remove-token", done.json)
        assert (done.json["removed"], done.json["given_up"]) == ("spare", None)
        assert all(token["destroyed"] for token in done.json["certificate"]["tokens"])
        status = spare.run("--json", "status", "--token", "doctor").json
        assert [token["name"] for token in status["tokens"]] == ["doctor"]
        assert status["problems"] == []
        assert "was removed from this vault" in spare.run("status", "--token", "spare", code=7).stderr

    def test_one_that_is_treated_as_absent_leaves_compromised_pairings(self, spare: Clinic) -> None:
        add(spare)
        done = spare.run("--yes", "vault", "remove-token", "spare", "--without", "spare")
        assert "token spare: old root key 1 LEFT" in done.stdout
        assert "could be followed with a token that was removed unseen" in done.stderr
        assert "COMPROMISED" in spare.run("patient", "list").stdout
        shown = spare.run("--json", "patient", "show", V2_PATIENT).json
        assert_fields_documented("patient show", shown)
        assert [pairing["compromised"] for pairing in shown["pairings"]] == [True]
        assert spare.run("vault", "sync").stdout == "token spare: old root key 1 destroyed\n"
        assert "COMPROMISED" in spare.run("patient", "list").stdout, "it was out of sight in between"

    def test_it_is_typed_to_confirm(self, spare: Clinic) -> None:
        add(spare)
        terminal = spare.terminal("vault", "remove-token", "spare")
        terminal.expect("Type spare to go on: ")
        terminal.type("doctor\n")
        assert terminal.finish() == 1
        assert "spare" in spare.run("status").stdout

    def test_an_unknown_one(self, spare: Clinic) -> None:
        assert "no token nobody" in spare.run("--yes", "vault", "remove-token", "nobody", code=2).stderr


class TestPolicy:
    def test_shown_and_changed(self, clinic: Clinic) -> None:
        shown = clinic.run("--json", "vault", "policy").json
        assert_fields_documented("vault policy", shown)
        assert shown["policy"] == {"grace_days": 7, "retain_months": 60, "require_attestation": "none"}
        clinic.run("vault", "policy", "--grace-days", "3", "--retain-months", "120")
        assert clinic.run("vault", "policy").stdout.split() == [
            *("grace", "days:", "3", "months", "kept:", "120", "tokens", "must", "be:", "any")
        ]
        status = clinic.run("--json", "status").json
        assert status["policy"] == {"grace_days": 3, "retain_months": 120, "require_attestation": "none"}
        assert "grace 3 days, months kept 120" in clinic.run("status").stdout

    def test_a_requirement_that_a_token_on_record_does_not_meet_is_warned_of(self, clinic: Clinic) -> None:
        done = clinic.run("vault", "policy", "--require-attestation", "device-attested")
        assert "warning: token doctor is token-claimed" in done.stderr

    @pytest.mark.parametrize("change", [("--grace-days", "29"), ("--retain-months", "0"), ("--grace-days", "-1")])
    def test_out_of_bounds(self, clinic: Clinic, change: tuple[str, str]) -> None:
        assert "give one from" in clinic.run("vault", "policy", *change, code=2).stderr

    def test_a_vault_can_begin_with_a_requirement(self, clinic: Clinic, tmp_path: Path) -> None:
        vault = tmp_path / "other.db"
        create = ("vault", "create", "--vault", str(vault), "--token", f"doctor={clinic.uri}", "--require-attestation")
        assert "device-attested" in clinic.run(*create, "device-attested", code=6).stderr
        assert not vault.exists()
        clinic.run(*create, "token-claimed")
        assert clinic.run("--json", "status", "--vault", vault).json["policy"]["require_attestation"] == "token-claimed"


class TestWithAYubiKey:
    """A vault of a PKCS#11 token gets a YubiKey as its spare, and the other way round."""

    @pytest.fixture
    def key(self, yubikey: Callable[..., VirtualYubiKey], clinic: Clinic) -> VirtualYubiKey:
        key = yubikey("5.7.4")
        sources = f"env:{PIN_VARIABLE} {key.serial}=env:KEY_PIN"
        clinic.run.env |= {"KEY_PIN": "481516", "MEDCRYPT_PIN_SOURCE": sources}
        clinic.run("token", "init", key.uri, "--puk-source", "env:PUK", env={"PUK": "87654321"})
        return key

    def test_each_is_enough(self, clinic: Clinic, key: VirtualYubiKey) -> None:
        (wire,) = clinic.encrypt("antes").splitlines()
        added = clinic.run("--json", "vault", "add-token", f"llavero={key.uri}", "--touch", "cached").json["token"]
        assert (added["profile"], added["touch"], added["serial"]) == ("p256-hpke", "cached", str(key.serial))
        assert clinic.run("decrypt", "--token", "llavero", stdin=wire).stdout == "antes"
        (other,) = clinic.run("encrypt", V2_PATIENT, "--token", "llavero", stdin="después").stdout.splitlines()
        key.pull()
        assert clinic.run("decrypt", stdin=other).stdout == "después"  # with the one that is there
        assert "no YubiKey" in clinic.run("decrypt", "--token", "llavero", stdin=other, code=3).stderr
        key.insert()
        assert clinic.run("--json", "audit", "verify", "--token", "llavero").json["tokens"] == ["doctor", "llavero"]

    def test_a_pkcs11_token_behind_it(self, clinic: Clinic, key: VirtualYubiKey, tmp_path: Path) -> None:
        vault = ("--vault", str(tmp_path / "other.db"))
        clinic.run(*vault, "vault", "create", "--token", f"llavero={key.uri}")
        clinic.run(*vault, "vault", "add-token", f"doctor={clinic.uri}")
        key.pull()
        clinic.run(*vault, "patient", "add", "EXP-1", "--unconfirmed")
        wire = clinic.run(*vault, "encrypt", "EXP-1", stdin="hola").stdout
        key.insert()
        assert clinic.run(*vault, "decrypt", "--token", "llavero", stdin=wire).stdout == "hola"
        assert clinic.run(*vault, "audit", "verify").returncode == 0

    def test_pulled_while_it_is_added(self, clinic: Clinic, key: VirtualYubiKey) -> None:
        key.log()
        for at in (10, 40, 70):
            key.pull_at(at)
            stopped = clinic.run("--json", "vault", "add-token", f"llavero={key.uri}", code=3)
            assert stopped.error["error"] in ("token-removed", "token-absent")
            clinic.run("audit", "verify", "--token", "doctor")
            key.insert()
        problems = clinic.run("--json", "status").json["problems"]
        assert len(problems) == 1
        assert "adding token llavero (serial" in problems[0]
        clinic.run("vault", "add-token", f"llavero={key.uri}")
        assert clinic.run("--json", "status", "--token", "llavero").json["problems"] == []
        assert len(key.state.keys) == 3  # F9 and ours
