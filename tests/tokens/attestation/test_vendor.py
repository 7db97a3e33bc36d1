"""Attestations of real YubiKeys of three generations against the vendor's real certificates and the program's pins."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.tokens.attestation import certificates
from medcrypt_hsm.tokens.attestation.grades import DEVICE_ATTESTED, NOT_ATTESTED, TOKEN_CLAIMED, judge
from medcrypt_hsm.tokens.attestation.vendor import PINNED, pem, read_certificate, read_roots
from tests.support.attestation_vendor import ROOTS, SAMPLES
from tests.support.checkout import ROOT

GENUINE = {
    "5.4.3": ("9a", "15732500", "once", "never", "USB-C nano", "Yubico PIV Root CA Serial 263751"),
    "4.3.7": ("9a", "", "once", "never", "", "Yubico U2F Root CA Serial 457200631"),
    "5.7.4": ("9a", "36345471", "once", "never", "USB-A keychain", "Yubico Attestation Root 1"),
}


def sample(key: str, f9: str | None = None) -> tuple[bytes, bytes]:
    firmware = (f9 or key).partition("-")[0]
    return read_certificate(SAMPLES / f"{key}.pem"), read_certificate(SAMPLES / f"{firmware}-f9.pem")


VENDOR = read_roots(ROOTS)
SPECIFICATION = (ROOT / "docs" / "spec" / "attestation.md").read_text()


def test_the_vendors_directory_holds_every_pin_under_its_name() -> None:
    from cryptography import x509

    names = {
        hashlib.sha256(der).digest(): x509.load_der_x509_certificate(der).subject.rfc4514_string() for der in VENDOR
    }
    assert names == {pin: "CN=" + name.removesuffix(" (old)") for pin, name in PINNED.items()}
    assert len(PINNED) == 9


@pytest.mark.parametrize("firmware", GENUINE)
def test_real_devices_are_attested(firmware: str) -> None:
    found = certificates.verify(sample(f"{firmware}-key"), VENDOR)
    told = (found.slot, found.serial, found.pin_policy, found.touch_policy, found.form_factor, found.root)
    assert told == GENUINE[firmware]
    assert found.firmware == firmware


def test_a_device_that_hides_its_serial_is_not_told_from_its_batch() -> None:
    assert judge(sample("5.4.3-key"), VENDOR).grade == DEVICE_ATTESTED
    hidden = judge(sample("4.3.7-key"), VENDOR)
    assert (hidden.grade, hidden.forged) == (TOKEN_CLAIMED, False)
    assert "serial" in hidden.reasons[0]


@pytest.mark.parametrize("firmware", ["4.3.5", "5.7.4"])
def test_real_rsa_keys_fail_for_being_rsa_and_nothing_else(firmware: str) -> None:
    with pytest.raises(NotAuthentic, match="not a P-256 key"):
        certificates.verify(sample(f"{firmware}-key-rsa"), VENDOR)


def test_one_f9_key_serves_a_batch_and_so_the_serial_must_be_compared() -> None:
    key, f9 = sample("5.7.4-key")  # this F9 was read from device 32718477
    assert certificates.verify((key, f9), VENDOR).serial == "36345471"
    assert judge((key, f9), VENDOR, serial="36345471").grade == DEVICE_ATTESTED
    other = judge((key, f9), VENDOR, serial="32718477")
    assert (other.grade, other.forged) == (NOT_ATTESTED, True)
    assert "serial 36345471" in other.reasons[0]


@pytest.mark.parametrize(("key", "f9"), [("5.4.3-key", "4.3.7"), ("4.3.7-key", "5.4.3"), ("5.4.3-key", "5.7.4")])
def test_another_devices_f9_does_not_fit(key: str, f9: str) -> None:
    with pytest.raises(NotAuthentic, match="not signed by the F9"):
        certificates.verify(sample(key, f9), VENDOR)


NEEDED = {
    "5.4.3": {"yubico-piv-ca-1.pem"},
    "4.3.7": {"yubico-fido-ca-1.pem"},
    "5.7.4": {"yubico-ca-1.pem", "yubico-intermediate.pem"},
}


@pytest.mark.parametrize("firmware", NEEDED)
def test_each_chain_needs_its_own_files_and_no_other(firmware: str, tmp_path: Path) -> None:
    for name in NEEDED[firmware]:
        shutil.copy(ROOTS / name, tmp_path)
    certificates.verify(sample(f"{firmware}-key"), read_roots(tmp_path))
    for missing in NEEDED[firmware]:
        others = [path for path in ROOTS.iterdir() if path.name != missing]
        (without := tmp_path / f"without {missing}").mkdir()
        for path in others:
            shutil.copy(path, without)
        with pytest.raises(NotAuthentic):
            certificates.verify(sample(f"{firmware}-key"), read_roots(without))


def test_the_old_root_alone_may_not_have_an_f9_authority_below_it() -> None:
    """Its path length is 0; with the certificate that replaced it beside it, in any order, the chain holds."""
    old, new = (read_certificate(ROOTS / name) for name in ("piv-attestation-ca-old.pem", "yubico-piv-ca-1.pem"))
    with pytest.raises(NotAuthentic, match="authorities below"):
        certificates.verify(sample("5.4.3-key"), [old])
    for roots in ([old, new], [new, old]):
        assert certificates.verify(sample("5.4.3-key"), roots).root == "Yubico PIV Root CA Serial 263751"


def test_every_flipped_byte_of_a_real_attestation_is_found() -> None:
    key, f9 = sample("5.4.3-key")
    for n, certificate in enumerate((key, f9)):
        for at in range(len(certificate)):
            changed = certificate[:at] + bytes([certificate[at] ^ 1]) + certificate[at + 1 :]
            with pytest.raises(NotAuthentic):
                certificates.verify((changed, f9) if n == 0 else (key, changed), VENDOR)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_certificates_are_refused_in_words(data: st.DataObject) -> None:
    """Pieces of real certificates cut out, doubled, overwritten: never another error, never accepted."""
    shown = list(sample(data.draw(st.sampled_from(["5.4.3-key", "4.3.7-key", "5.7.4-key"]))))
    which = data.draw(st.integers(0, 1))
    changed = bytearray(shown[which])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        until = min(len(changed), at + data.draw(st.integers(0, 12)))
        changed[at:until] = data.draw(st.binary(max_size=12) | st.just(bytes(changed[at:until]) * 2))
    if bytes(changed) == shown[which]:
        return
    shown[which] = bytes(changed)
    with pytest.raises(NotAuthentic):
        certificates.verify(shown, VENDOR)
    # With nothing above it F9's certificate proves nothing, and only its key counts.
    with contextlib.suppress(NotAuthentic) if which else pytest.raises(NotAuthentic):
        certificates.read(shown)


@pytest.mark.parametrize(("firmware", "root"), [("5.4.3", "yubico-piv-ca-1.pem"), ("5.7.4", "yubico-ca-1.pem")])
def test_the_specifications_openssl_commands_agree(firmware: str, root: str, tmp_path: Path) -> None:
    for name, der in zip(("82.pem", "F9.pem"), sample(f"{firmware}-key"), strict=True):
        (tmp_path / name).write_text(pem(der))
    for path in ROOTS.iterdir():
        shutil.copy(path, tmp_path)
    block = SPECIFICATION.partition("## By hand")[2].split("```")[1]
    commands = [line for line in block.splitlines() if line.startswith("openssl")]
    mine = [line for line in commands if "-CAfile" not in line or f"-CAfile {root} " in line]
    assert len(mine) == len(commands) - 1
    script = "\n".join(["set -o pipefail", *mine])
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "82.pem: OK" in done.stdout
    found = judge(sample(f"{firmware}-key"), VENDOR)
    assert f"= {found.public_key}\n" in done.stdout
    assert f"CN = YubiKey PIV Attestation {found.slot}" in done.stdout
    for fingerprint in re.findall(r"Fingerprint=([0-9A-F:]+)", done.stdout):
        assert fingerprint.replace(":", "").lower() in SPECIFICATION


def test_the_specification_names_every_pin() -> None:
    assert {bytes.fromhex(pin) for pin in re.findall(r"\b[0-9a-f]{64}\b", SPECIFICATION)} == set(PINNED)


def test_pem_is_what_the_vendor_writes() -> None:
    path = ROOTS / "yubico-piv-ca-1.pem"
    assert pem(read_certificate(path)) == path.read_text()
