"""An outside witness of a practice's token after a whole day's work: OpenSC's pkcs11-tool, which knows nothing of us.

What the keys are, that they cannot be had or used for anything else even with the PIN, and that a command leaves no
message key on it. tests/tokens/pkcs11/test_token_witness.py does the same for single objects; the kit is shared.
"""

from __future__ import annotations

import re
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute

from tests.support.command_line import CommandLine
from tests.support.phone import Device
from tests.support.session_desk import wait
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module
from tests.tokens.pkcs11.test_token_witness import Witness

DAYS = "2026-11-20 09:00:00", "2026-12-02 09:00:00"


class Place:
    """A token on which one vault has been used for a while."""

    def __init__(self, witness: Witness, vault_id: str, medcrypt: CommandLine) -> None:
        self.witness = witness
        self.kek, self.audit, self.anchor = (f"medcrypt {what} {vault_id}" for what in ("kek", "audit", "anchor"))
        self.kek += " 1"
        self.medcrypt = medcrypt


@pytest.fixture(scope="module")
def place(softhsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("witness")
    uri = softhsm.make_token()
    medcrypt = CommandLine(root, softhsm, {"MEDCRYPT_VAULT": str(root / "practice" / "vault.db")}, now=DAYS[0])
    phone = Device(root / "phone")
    vault_id = medcrypt("--json", "vault", "create", "--token", f"doctor={uri}").json["id"]
    code = phone.pair(DAYS[0], medcrypt("patient", "add", "ANA").stdout)
    medcrypt("patient", "confirm", "ANA", code)
    medcrypt("patient", "add", "BENITO", "--protocol", "v1")
    medcrypt("encrypt", "BENITO", stdin="uno")
    medcrypt("encrypt", "ANA", stdin="dos")
    texts = phone.write(DAYS[0], "tres")
    medcrypt("decrypt", stdin=texts)
    medcrypt("decrypt", stdin=texts.replace("[MEDCRYPT:v2:", "[MEDCRYPT:v2:AAAA"), code=5)
    medcrypt.now = DAYS[1]
    medcrypt("decrypt", stdin=texts)  # opens a month
    medcrypt("token", "check", uri)
    medcrypt("vault", "backup", root / "backup.db")
    return Place(Witness(uri.split("=")[1].split("?")[0]), vault_id, medcrypt)


def test_nothing_is_there_but_the_vaults_own_keys(place: Place) -> None:
    """No message key, chain key, log key or keyset stays as an object; no anchor but the newest."""
    done = place.witness("--list-objects")
    assert done.stdout.count("medcrypt anchor") == 1
    objects = place.witness.objects()
    expected = {
        ("Secret Key", place.kek),
        ("Private Key", place.audit),
        ("Public Key", place.audit),
        ("Data", place.anchor),
    }
    assert set(objects) == expected
    assert len(re.findall(r"^\S", done.stdout, re.MULTILINE)) == len(expected)


def test_the_keys_were_made_there_and_never_leave(place: Place) -> None:
    objects = place.witness.objects()
    for key, usage in ((("Secret Key", place.kek), "wrap, unwrap"), (("Private Key", place.audit), "sign")):
        assert objects[key]["Access"] == "sensitive, always sensitive, never extractable, local"
        assert objects[key]["Usage"] == usage
    assert "private" in objects["Data", place.anchor]["flags"]


def test_without_the_pin_there_is_no_anchor_and_no_secret_key(place: Place) -> None:
    assert list(place.witness.objects(login=False)) == [("Public Key", place.audit)]
    done = place.witness("--read-object", "--type", "data", "--label", place.anchor, login=False)
    assert done.returncode != 0
    assert "medcrypt" not in done.stdout


def test_the_kek_cannot_be_read(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "kek"
    done = place.witness("--read-object", "--type", "secrkey", "--label", place.kek, "--output-file", out)
    assert done.returncode != 0
    assert "CKR_ATTRIBUTE_SENSITIVE" in done.stdout + done.stderr
    assert not out.exists() or not out.read_bytes()


def test_no_key_can_be_wrapped_out_under_a_key_of_ones_own(place: Place, tmp_path: Path) -> None:
    ident, objects = "e7e7", place.witness.objects()
    template = ("--keygen", "--key-type", "AES:32", "--label", "own", "--usage-wrap", "--id", ident)
    assert place.witness(*template).returncode == 0
    try:
        wrap = ("--wrap", "--mechanism", "AES-KEY-WRAP", "--id", ident, "--application-id")
        for key in (("Secret Key", place.kek), ("Private Key", place.audit)):
            out = tmp_path / key[0]
            done = place.witness(*wrap, objects[key]["ID"], "--output-file", out)
            assert done.returncode != 0, done.stdout
            assert not out.exists() or not out.read_bytes()
    finally:
        assert place.witness("--delete-object", "--type", "secrkey", "--id", ident).returncode == 0


def test_the_kek_encrypts_and_decrypts_nothing(place: Place, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(48))
    ident = place.witness.objects()["Secret Key", place.kek]["ID"]
    for act in ("--encrypt", "--decrypt"):
        for mechanism in (("AES-CBC", "--iv", "00" * 16), ("AES-ECB",)):
            done = place.witness(
                *(act, "--id", ident, "--mechanism", *mechanism, "--input-file", source, "--output-file", out)
            )
            assert done.returncode != 0, f"{act} {mechanism}"
            assert "CKR_KEY_FUNCTION_NOT_PERMITTED" in done.stderr, done.stderr
            assert not out.exists() or not out.read_bytes()


def test_neither_value_nor_flags_of_a_key_yield(place: Place) -> None:
    """PKCS#11 itself, with the PIN: pkcs11-tool does not try to read a private key or to turn a flag."""
    library = pkcs11.lib(str(softhsm_module()))
    library.reinitialize()  # commands in other processes changed what it knew
    with library.get_token(token_label=place.witness.label).open(user_pin=USER_PIN, rw=True) as session:
        for label in (place.kek, place.audit):
            keys = list(session.get_objects({Attribute.LABEL: label, Attribute.SENSITIVE: True}))
            assert len(keys) == 1
            with pytest.raises(pkcs11.exceptions.AttributeSensitive):
                keys[0][Attribute.VALUE]
            for attribute, wanted in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
                with pytest.raises(pkcs11.PKCS11Error):
                    keys[0][attribute] = wanted
                assert keys[0][attribute] is not wanted


def test_commands_and_a_session_take_leave_of_the_module(place: Place, tmp_path: Path) -> None:
    """OpenSC's pkcs11-spy stands before the module and writes down each call: the last ones give everything back."""
    spy = {"PKCS11SPY": str(softhsm_module()), "PKCS11SPY_OUTPUT": str(tmp_path / "calls")}
    (module,) = Path("/usr/lib").glob("*/pkcs11-spy.so")
    token = f"pkcs11:token={place.witness.label}?module-path={module}"

    def calls() -> list[str]:
        return re.findall(r"^\d+: (C_\w+)$", (tmp_path / "calls").read_text(), re.MULTILINE)

    place.medcrypt("--token", token, "encrypt", "BENITO", stdin="cuatro", env=spy)
    assert "C_Login" in calls()
    assert calls()[-3:] == ["C_Logout", "C_CloseSession", "C_Finalize"]
    place.medcrypt("--token", token, "session", "start", env=spy)
    place.medcrypt("encrypt", "BENITO", stdin="cinco")
    assert calls().count("C_Finalize") == 1
    place.medcrypt("session", "lock")
    wait(lambda: calls().count("C_Finalize") == 2, 5)
    assert calls()[-3:] == ["C_Logout", "C_CloseSession", "C_Finalize"]
