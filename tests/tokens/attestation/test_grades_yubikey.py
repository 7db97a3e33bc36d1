"""Attestation of virtual YubiKeys through pcscd, with the pins of the tests' own vendor; and what the command says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medcrypt_hsm.tokens import P256_HPKE, Token, TokenInfo
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.attestation.grades import (
    DEVICE_ATTESTED,
    NOT_ATTESTED,
    TOKEN_CLAIMED,
    Attested,
    grade,
    judge,
)
from medcrypt_hsm.tokens.attestation.vendor import read_certificate, read_roots
from medcrypt_hsm.tokens.provision import initialize
from tests.support.attestation_vendor import ROOTS
from tests.support.checkout import FULL
from tests.support.clinic import assert_fields_documented
from tests.support.command_line import PIN_VARIABLE, CommandLine
from tests.support.pcscd import Pcscd
from tests.support.virtual_yubikey.attestation import AttestationCa
from tests.support.virtual_yubikey.firmware import Firmware
from tests.support.yubikey import FIRMWARES, VirtualYubiKey, attestation_ca

PIN, PUK = "424242", "87654321"
KEK, SIGNER = "medcrypt test kek", "medcrypt test audit"


def pin(info: TokenInfo) -> str:
    return PIN


@pytest.fixture(scope="module", params=FIRMWARES if FULL else ("4.3.5", "5.7.4"))
def made(
    request: pytest.FixtureRequest, worker_pcscd: Pcscd, tmp_path_factory: pytest.TempPathFactory
) -> VirtualYubiKey:
    """A YubiKey of each firmware with a KEK and an audit key; tests get copies."""
    worker_pcscd.start(readers=1)
    directory = tmp_path_factory.mktemp("attested") / "state"
    device = VirtualYubiKey.make(worker_pcscd, directory, serial=12345678, firmware=request.param).start()
    initialize(device.uri, None, PUK, PIN)
    with open_token(device.uri, pin) as token:
        token.make_kek(KEK, P256_HPKE, touch="cached")
        token.make_signing_key(SIGNER)
    device.stop()
    worker_pcscd.stop()
    return device


@pytest.fixture
def device(made: VirtualYubiKey, yubikey: Callable[..., VirtualYubiKey]) -> VirtualYubiKey:
    return yubikey(like=made)


def roots_of(firmware: str, directory: Path) -> tuple[tuple[bytes, ...], dict[bytes, str]]:
    """What the tests' vendor publishes for it, and the pins that a caller of the library would name."""
    vendor = attestation_ca(firmware)
    directory.mkdir()
    (directory / "published.pem").write_bytes(vendor.published)
    pins = {pin: f"test vendor {n}" for n, pin in enumerate(vendor.fingerprints())}
    return read_roots(directory, pins), pins


def graded(device: VirtualYubiKey, directory: Path, *, followed: bool = True) -> list[Attested]:
    roots, pins = roots_of(str(device.state.firmware), directory)
    with open_token(device.uri, pin) as token:
        return grade(token, (KEK, SIGNER), roots if followed else (), pins, on_record=_recorded(token))


def _recorded(token: Token) -> dict[str, bytes]:
    return {name: token.public_key(name) for name in (KEK, SIGNER)}


def test_made_on_the_device(device: VirtualYubiKey, tmp_path: Path) -> None:
    found = graded(device, tmp_path / "roots")
    assert [(one.grade, one.reasons) for one in found] == [(DEVICE_ATTESTED, ())] * 2
    firmware = str(device.state.firmware)
    assert {(one.serial, one.firmware, one.pin_policy, one.root) for one in found} == {
        ("12345678", firmware, "once", "test vendor 0")
    }
    assert [one.touch_policy for one in found] == ["cached", "never"]
    assert len({one.slot for one in found} & {f"{slot:02x}" for slot in range(0x82, 0x96)}) == 2


def test_without_roots_it_only_claims(device: VirtualYubiKey, tmp_path: Path) -> None:
    assert [one.grade for one in graded(device, tmp_path / "roots", followed=False)] == [TOKEN_CLAIMED] * 2


def test_a_key_that_was_brought_is_not_attested(device: VirtualYubiKey, tmp_path: Path) -> None:
    """The same key, but imported: the device certifies none of these."""
    device.stop()
    with device.tampering() as state:
        for slot in range(0x82, 0x96):
            if slot in state.keys:
                state.keys[slot] = replace(state.keys[slot], generated=False)
    device.start()
    roots, pins = roots_of(str(device.state.firmware), tmp_path / "roots")
    with open_token(device.uri, pin) as token:
        found = grade(token, (KEK, SIGNER), roots, pins)
    assert [one.grade for one in found] == [NOT_ATTESTED] * 2


def test_an_f9_key_of_its_owners_proves_nothing(device: VirtualYubiKey, tmp_path: Path) -> None:
    """Anybody may load F9 anew; such a device says what it likes. Without roots nobody can tell."""
    device.stop()
    with device.tampering() as state:
        AttestationCa.make(Firmware.parse(str(state.firmware))).install(state)
    device.start()
    found = graded(device, tmp_path / "roots")
    assert [(one.grade, one.forged) for one in found] == [(NOT_ATTESTED, True)] * 2
    assert [one.grade for one in graded(device, tmp_path / "again", followed=False)] == [TOKEN_CLAIMED] * 2


def test_a_device_without_an_f9_certificate_only_claims(device: VirtualYubiKey, tmp_path: Path) -> None:
    """The oldest tell of their keys only by attesting them, so there is nothing left to go by."""
    device.stop()
    with device.tampering() as state:
        del state.objects[0x5FFF01]
    device.start()
    roots, pins = roots_of(str(device.state.firmware), tmp_path / "roots")
    with open_token(device.uri, pin) as token:
        found = grade(token, (KEK, SIGNER), roots, pins)
    expected = NOT_ATTESTED if device.state.firmware.major < 5 else TOKEN_CLAIMED
    assert [(one.grade, one.forged) for one in found] == [(expected, False)] * 2


def test_the_command_and_an_auditor_with_its_files(
    device: VirtualYubiKey, medcrypt: CommandLine, tmp_path: Path
) -> None:
    env = {PIN_VARIABLE: PIN, "MEDCRYPT_VAULT": str(tmp_path / "none.db")}
    saved = tmp_path / "saved"
    done = medcrypt("--json", "token", "attest", device.uri, "--save", saved, env=env)
    assert_fields_documented("token attest", done.json)
    assert done.json["grade"] == TOKEN_CLAIMED
    slots = [key["slot"] for key in done.json["keys"]]
    assert sorted(path.name for path in saved.iterdir()) == sorted([*(f"{slot}.pem" for slot in slots), "F9.pem"])
    assert sorted(done.json["saved"]) == sorted(map(str, saved.iterdir()))
    again = medcrypt("--json", "token", "attest", device.uri, "--save", saved, env=env, code=2)
    assert "there already" in again.error["message"]

    # The program's pins are the real vendor's, and this is none of its devices.
    forged = medcrypt("--json", "token", "attest", device.uri, "--roots", ROOTS, env=env, code=5)
    assert (forged.json["grade"], forged.error["error"]) == (NOT_ATTESTED, "not-authentic")
    assert all(key["forged"] for key in forged.json["keys"])

    # An auditor's own pins, through the library, with no device.
    device.pull()
    roots, pins = roots_of(str(device.state.firmware), tmp_path / "roots")
    for slot in slots:
        shown = [read_certificate(saved / name) for name in (f"{slot}.pem", "F9.pem")]
        assert judge(shown, roots, pins).grade == DEVICE_ATTESTED
    files = ("--certificate", saved / f"{slots[0]}.pem", "--intermediate", saved / "F9.pem")
    told = medcrypt("--json", "token", "attest", *files, code=5).json["keys"][0]
    assert (told["serial"], told["slot"]) == ("12345678", slots[0])
    if device.state.firmware.major >= 5:  # openssl wants BasicConstraints
        (tmp_path / "vendor.pem").write_bytes(attestation_ca(str(device.state.firmware)).published)
        command = ["openssl", "verify", "-CAfile", "../vendor.pem", "-untrusted", "F9.pem", f"{slots[0]}.pem"]
        subprocess.run(command, cwd=saved, check=True, capture_output=True)


def test_what_the_vendors_own_tool_saves_is_the_same_attestation(device: VirtualYubiKey, tmp_path: Path) -> None:
    """An auditor need not take this program's word for what the device says."""
    (one, _), ykman = graded(device, tmp_path / "roots"), Path(sys.executable).with_name("ykman")
    for command in (["keys", "attest", one.slot, "key.pem"], ["certificates", "export", "f9", "f9.pem"]):
        subprocess.run([ykman, "piv", *command], cwd=tmp_path, check=True, capture_output=True)
    shown = [read_certificate(tmp_path / name) for name in ("key.pem", "f9.pem")]
    roots, pins = roots_of(str(device.state.firmware), tmp_path / "again")
    theirs = judge(shown, roots, pins, name=one.name)
    assert theirs.certificates[1] == one.certificates[1]
    assert replace(theirs, certificates=()) == replace(one, certificates=())


def test_a_vaults_yubikey_by_name(device: VirtualYubiKey, medcrypt: CommandLine, tmp_path: Path) -> None:
    env = {PIN_VARIABLE: PIN, "MEDCRYPT_VAULT": str(tmp_path / "vault" / "vault.db")}
    medcrypt("vault", "create", "--token", f"doctor={device.uri}", env=env)
    document = medcrypt("--json", "token", "attest", "doctor", env=env).json
    assert (document["name"], document["grade"]) == ("doctor", TOKEN_CLAIMED)
    kek, audit = document["keys"]
    (token,) = medcrypt("--json", "status", env=env).json["tokens"]
    assert audit["public_key"] == token["fingerprint"]
    assert kek["public_key"] != audit["public_key"]
    assert [key["name"].split()[1] for key in (kek, audit)] == ["kek", "audit"]
