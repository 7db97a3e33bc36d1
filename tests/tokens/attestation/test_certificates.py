"""Attestation chains with one fault each, made by an authority of the tests' own; and directories of roots."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.errors import Malformed, NotAuthentic, UsageError
from medcrypt_hsm.tokens.attestation import certificates
from medcrypt_hsm.tokens.attestation.grades import DEVICE_ATTESTED, GRADES, NOT_ATTESTED, TOKEN_CLAIMED, judge, worst
from medcrypt_hsm.tokens.attestation.vendor import PINNED, DeviceAttestation, pem, read_certificate, read_roots
from tests.support.attestation_vendor import (
    ARC,
    DATES,
    FIRMWARE,
    FORM,
    NOW,
    POLICY,
    ROOTS,
    SERIAL,
    SERIAL_NUMBER,
    Chain,
    device_says,
    integer,
    key,
    new_chain,
    old_chain,
    spki,
)

SHAPES: dict[str, Callable[..., Chain]] = {"old": old_chain, "new": new_chain}


def verify(made: Chain, pins: Mapping[bytes, str] | None = None) -> DeviceAttestation:
    return certificates.verify(made.shown, made.roots, made.pins if pins is None else pins, now=NOW)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("signer", ["f9", "rsa f9", "p384 f9"])
def test_both_shapes_and_every_kind_of_f9(shape: str, signer: str) -> None:
    f9 = key(signer)
    made = SHAPES[shape](slot={"signer": f9}, f9={"public": f9.public_key()})
    found = verify(made)
    assert found == DeviceAttestation(
        public_key=spki(key("slot").public_key()),
        slot="82",
        serial=str(SERIAL),
        firmware="5.4.3",
        pin_policy="once",
        touch_policy="never",
        form_factor="USB-C nano",
        root=f"pin {len(made.roots) - 1}",
    )


def test_an_early_f9_lacks_basic_constraints() -> None:
    early = {FIRMWARE: b"\x04\x03\x04"}
    slot = {"extensions": device_says(firmware="4.3.5", form=None)}
    found = verify(old_chain(slot=slot, f9={"ca": None, "extensions": early}, root={"ca": 0}))
    assert (found.firmware, found.form_factor) == ("4.3.5", "")


LONG_AGO = (datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC))
TO_COME = (NOW + timedelta(seconds=1), DATES[1])

PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

# What is changed, in which certificate, and a part of what is said of it.
Fault = tuple[str, dict[str, Any], str]
DEVICE_FAULTS: list[Fault] = [
    ("the key's signed by another", {"slot": {"signer": key("other")}}, "not signed by the F9"),
    ("the key's names another issuer", {"slot": {"issuer": "Somebody"}}, "not signed by the F9"),
    ("a slot that does not exist", {"slot": {"subject": "YubiKey PIV Attestation 96"}}, "name of an attested slot"),
    ("F9 attested by itself", {"slot": {"subject": "YubiKey PIV Attestation f9"}}, "name of an attested slot"),
    ("a slot in capitals", {"slot": {"subject": "YubiKey PIV Attestation 9A"}}, "name of an attested slot"),
    ("more behind the slot", {"slot": {"subject": "YubiKey PIV Attestation 82 "}}, "name of an attested slot"),
    ("an authority as the key's", {"slot": {"ca": 0}}, "may sign others"),
    ("the key's has expired", {"slot": {"dates": LONG_AGO}}, "the key's certificate has expired"),
    ("F9 under another name", {"f9": {"subject": "Example Authority"}}, "name of an F9 certificate"),
    ("F9 signed by another", {"f9": {"signer": key("other")}}, "did not sign"),
    ("F9 no authority", {"f9": {"ca": -1}}, "may not sign others"),
    ("F9 without BasicConstraints", {"f9": {"ca": None}}, "no BasicConstraints"),
    ("and without firmware", {"f9": {"ca": None, "extensions": {}}}, "no BasicConstraints"),
    ("and with half a firmware", {"f9": {"ca": None, "extensions": {FIRMWARE: b"\x04"}}}, "no BasicConstraints"),
    ("F9 may not sign", {"f9": {"usage": False}}, "may not sign certificates"),
    ("F9 not valid yet", {"f9": {"dates": TO_COME}}, "F9's certificate is not valid yet"),
    ("F9 has expired", {"f9": {"dates": LONG_AGO}}, "F9's certificate has expired"),
    ("F9 from another authority", {"f9": {"issuer": "Another Root"}}, "is its issuer, CN=Another Root"),
    ("F9 with a weak hash", {"f9": {"digest": hashes.SHA224}}, "signed in a way that is not accepted"),
    ("F9 with PSS", {"f9": {"signer": key("rsa root"), "padding": PSS}}, "signed in a way that is not accepted"),
]
ROOT_FAULTS: list[Fault] = [
    ("the root has expired", {"root": {"dates": LONG_AGO}}, "has expired"),
    ("the root no authority", {"root": {"ca": -1}}, "may not sign others"),
    ("the root without BasicConstraints", {"root": {"ca": None}}, "may not sign others"),
    ("the root may not sign", {"root": {"usage": False}}, "may not sign certificates"),
    ("the root's path length", {"root": {"ca": 0}}, "authorities below"),
    ("the root signed by another", {"root": {"signer": key("other")}}, "not signed by itself"),
    ("the root's key is another", {"root": {"public": key("other").public_key()}}, "did not sign"),
]
BETWEEN_FAULTS: list[Fault] = [
    ("the lower's path length", {"lower": {"ca": 0}}, "authorities below"),
    ("the upper's path length", {"upper": {"ca": 1}}, "authorities below"),
    ("the root's path length", {"root": {"ca": 2}}, "authorities below"),
    ("the lower no authority", {"lower": {"ca": -1}}, "may not sign others"),
    ("the upper may not sign", {"upper": {"usage": False}}, "may not sign certificates"),
    ("the upper has expired", {"upper": {"dates": LONG_AGO}}, "has expired"),
    ("the lower signed by another", {"lower": {"signer": key("other")}}, "did not sign"),
    ("the upper signed by another", {"upper": {"signer": key("other")}}, "did not sign"),
]
CASES = [("old", *fault) for fault in DEVICE_FAULTS + ROOT_FAULTS]
CASES += [("new", *fault) for fault in DEVICE_FAULTS + BETWEEN_FAULTS]


@pytest.mark.parametrize(("shape", "what", "changes", "words"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_one_fault_one_reason(shape: str, what: str, changes: dict[str, Any], words: str) -> None:
    made = SHAPES[shape](**changes)
    with pytest.raises(NotAuthentic) as caught:
        verify(made)
    assert words in caught.value.message, what
    assert caught.value.hint
    judged = judge(made.shown, made.roots, made.pins, now=NOW)
    assert (judged.grade, judged.forged, judged.reasons) == (NOT_ATTESTED, True, (caught.value.message,))


def other(extra: Mapping[str, bytes], *without: str) -> dict[str, bytes]:
    return {oid: value for oid, value in device_says().items() if oid not in without} | dict(extra)


EXTENSIONS = {
    "no firmware": (other({}, FIRMWARE), "firmware"),
    "firmware in an OCTET STRING": (other({FIRMWARE: b"\x04\x03\x05\x04\x03"}), "firmware"),
    "firmware of two bytes": (other({FIRMWARE: b"\x05\x04"}), "firmware"),
    "no policy": (other({}, POLICY), "policy"),
    "policy of one byte": (other({POLICY: b"\x02"}), "policy"),
    "policy of three bytes": (other({POLICY: b"\x02\x01\x01"}), "policy"),
    "an unknown PIN policy": (other({POLICY: b"\x00\x01"}), "policy"),
    "an unknown touch policy": (other({POLICY: b"\x02\x04"}), "policy"),
    "an empty serial": (other({SERIAL_NUMBER: b""}), "serial"),
    "serial 0": (other({SERIAL_NUMBER: integer(0)}), "serial"),
    "a negative serial": (other({SERIAL_NUMBER: integer(-5)}), "serial"),
    "a serial above 32 bits": (other({SERIAL_NUMBER: integer(1 << 32)}), "serial"),
    "a serial with zeros before it": (other({SERIAL_NUMBER: b"\x02\x05\x00\x00\xbc\x61\x4e"}), "serial"),
    "a serial with more behind it": (other({SERIAL_NUMBER: integer(SERIAL) + b"\x00"}), "serial"),
    "a serial that is bare bytes": (other({SERIAL_NUMBER: SERIAL.to_bytes(4, "big")}), "serial"),
    "form factor of two bytes": (other({FORM: b"\x01\x01"}), "form factor"),
}


@pytest.mark.parametrize("what", EXTENSIONS)
def test_extensions_have_one_encoding(what: str) -> None:
    extensions, words = EXTENSIONS[what]
    with pytest.raises(Malformed, match=words):
        verify(old_chain(slot={"extensions": extensions}))


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ({"serial": (1 << 32) - 1}, {"serial": "4294967295"}),
        ({"serial": 0x00F00F14}, {"serial": "15732500"}),
        ({"serial": 1}, {"serial": "1"}),
        ({"serial": None}, {"serial": ""}),
        ({"policy": b"\x01\x02"}, {"pin_policy": "never", "touch_policy": "always"}),
        ({"policy": b"\x03\x03"}, {"pin_policy": "always", "touch_policy": "cached"}),
        ({"policy": b"\x04\x01"}, {"pin_policy": "match-once"}),
        ({"firmware": "5.7.4"}, {"firmware": "5.7.4"}),
        ({"form": b"\x81"}, {"form_factor": "USB-A keychain, FIPS"}),
        ({"form": b"\x22"}, {"form_factor": "form 34"}),
    ],
)
def test_what_the_extensions_tell(says: dict[str, Any], told: dict[str, str]) -> None:
    found = verify(old_chain(slot={"extensions": device_says(**says)}))
    assert {name: getattr(found, name) for name in told} == told


@pytest.mark.parametrize("where", ["slot", "f9", "root"])
def test_an_unknown_critical_extension_is_refused_and_another_is_not(where: str) -> None:
    kept = {"slot": device_says(), "f9": {FIRMWARE: b"\x05\x04\x03"}, "root": {}}[where]
    extensions = {**kept, ARC + "99": b"\x05\x00"}
    verify(old_chain(**{where: {"extensions": extensions}}))
    critical = old_chain(**{where: {"extensions": extensions, "critical": frozenset({ARC + "99"})}})
    with pytest.raises(NotAuthentic, match=r"critical extension.*41482\.3\.99"):
        verify(critical)


def test_a_doubled_extension_is_refused() -> None:
    """The builder makes none: one object identifier is turned into another one's in a certificate that has both."""
    extensions = device_says() | {ARC + "127": b"\x02\x01\x07"}
    shown, f9 = old_chain(slot={"extensions": extensions}).shown
    made = Chain((shown.replace(b"\x82\xc4\x0a\x03\x7f", b"\x82\xc4\x0a\x03\x07"), f9), old_chain().roots)
    assert made.shown[0] != shown
    with pytest.raises(Malformed, match="cannot be read"):
        verify(made)


def test_a_serial_number_below_one_is_refused_whatever_warnings_are_filtered() -> None:
    shown, f9 = old_chain().shown
    negative = shown.replace(bytes.fromhex("0208 0123456789abcdef"), bytes.fromhex("0208 8123456789abcdef"))
    assert negative != shown
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Malformed):
            certificates.read((negative, f9), now=NOW)


@pytest.mark.parametrize("kind", ["rsa slot", "p384 slot", "ed25519"])
def test_only_p256_keys_are_this_programs(kind: str) -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key() if kind == "ed25519" else key(kind).public_key()
    with pytest.raises(NotAuthentic, match="not a P-256 key"):
        verify(old_chain(public))


def test_a_pin_is_a_fingerprint_and_not_a_name() -> None:
    """The same names and dates and another key; and the right chain, with nothing of it pinned."""
    genuine = new_chain()
    impostor = new_chain(
        root={"public": key("other").public_key(), "signer": key("other")}, upper={"signer": key("other")}
    )
    verify(genuine)
    verify(impostor)
    with pytest.raises(NotAuthentic):
        verify(impostor, genuine.pins)
    with pytest.raises(NotAuthentic, match="given is its issuer"):
        verify(genuine, PINNED)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_every_link_must_be_pinned(missing: int) -> None:
    made = new_chain()
    pins = {pin: name for pin, name in made.pins.items() if name != f"pin {missing}"}
    with pytest.raises(NotAuthentic, match="given is its issuer"):
        verify(made, pins)


def test_certificates_that_name_each_other_end() -> None:
    made = new_chain(root={"issuer": "Example PIV Attestation B 1", "signer": key("lower")})
    with pytest.raises(NotAuthentic):
        verify(made)


@pytest.mark.parametrize("shown", [(), (0,), (0, 1, 1), (1, 0), (0, 0), (1, 1)])
def test_an_attestation_is_the_keys_and_f9s(shown: tuple[int, ...]) -> None:
    made = old_chain()
    with pytest.raises(NotAuthentic):
        certificates.verify([made.shown[n] for n in shown], made.roots, made.pins, now=NOW)


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_bytes_that_are_no_certificates(shown: list[bytes]) -> None:
    with pytest.raises(Malformed):
        certificates.verify(shown, (), {})


@pytest.mark.parametrize(
    ("at", "words"), [(DATES[0] - timedelta(seconds=1), "not valid yet"), (DATES[1] + timedelta(seconds=1), "expired")]
)
def test_dates_are_compared_with_the_clock(at: datetime, words: str) -> None:
    made = old_chain()
    for edge in DATES:
        certificates.verify(made.shown, made.roots, made.pins, now=edge)
    with pytest.raises(NotAuthentic, match=words) as caught:
        certificates.verify(made.shown, made.roots, made.pins, now=at)
    assert "clock" in caught.value.hint


# Grades


def test_grades_are_ordered_and_the_worst_counts() -> None:
    assert GRADES == ("not-attested", "token-claimed", "device-attested")
    assert worst(["device-attested", "token-claimed"]) == "token-claimed"
    assert worst(["token-claimed", "not-attested", "device-attested"]) == "not-attested"
    assert worst([]) == "not-attested"


def graded(made: Chain, *, followed: bool = True, **known: Any) -> tuple[str, bool, str]:
    found = judge(made.shown, made.roots if followed else (), made.pins, now=NOW, **known)
    return found.grade, found.forged, " ".join(found.reasons)


def test_the_grade_of_certificates() -> None:
    made, public = old_chain(), spki(key("slot").public_key())
    shown: dict[str, Any] = {"serial": str(SERIAL), "public_key": public}
    assert graded(made) == (DEVICE_ATTESTED, False, "")
    assert graded(made, **shown) == (DEVICE_ATTESTED, False, "")
    assert graded(made, followed=False, **shown)[:2] == (TOKEN_CLAIMED, False)
    assert graded(made, followed=False)[:2] == (NOT_ATTESTED, False)
    grade, forged, words = graded(made, serial="12345679", public_key=public)
    assert (grade, forged) == (NOT_ATTESTED, True)
    assert "12345678" in words
    assert "12345679" in words
    elsewhere = spki(key("other").public_key())
    for followed in (True, False):
        assert graded(made, followed=followed, serial=str(SERIAL), public_key=elsewhere)[:2] == (NOT_ATTESTED, True)
    weak = old_chain(slot={"extensions": device_says(policy=b"\x01\x01")})
    assert graded(weak, **shown)[:2] == (NOT_ATTESTED, False)
    grade, forged, words = graded(made, **shown, problems=["it may be exported"])
    assert (grade, forged, words) == (NOT_ATTESTED, False, "it may be exported")


# Directories and files


def test_roots_are_read_from_pem_and_der_and_only_when_pinned(tmp_path: Path) -> None:
    made, foreign = new_chain(), old_chain(root={"signer": key("other"), "public": key("other").public_key()})
    first, second, root = made.roots
    (tmp_path / "both.PEM").write_bytes(
        b"of the vendor\r\n" + (pem(first) + pem(second)).replace("\n", "\r\n").encode()
    )
    (tmp_path / "root.cer").write_bytes(root)
    (tmp_path / "root again.der").write_bytes(root)
    (tmp_path / "foreign.crt").write_text(pem(foreign.roots[0]))
    (tmp_path / "garbage.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n\xff\x00")
    (tmp_path / "broken.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIB")
    (tmp_path / "empty.crt").write_bytes(b"")
    (tmp_path / "readme.txt").write_text(pem(root))
    (tmp_path / "directory.pem").mkdir()
    assert sorted(read_roots(tmp_path, made.pins)) == sorted(made.roots)
    certificates.verify(made.shown, read_roots(tmp_path, made.pins), made.pins, now=NOW)


def test_directories_without_roots(tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    (unpinned := tmp_path / "unpinned").mkdir()
    (unpinned / "root.pem").write_text(pem(old_chain().roots[0]))
    for directory, words in (
        (tmp_path / "nowhere", "No such file"),
        (ROOTS / "yubico-ca-1.pem", "Not a directory"),
        (empty, "no certificate in"),
        (unpinned, "no certificate in"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            read_roots(directory)
        assert "docs/spec/attestation.md" in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no certificate here\n",
        pem(b"").encode(),
        (pem(b"a") + pem(b"b")).encode(),
        b"-----BEGIN CERTIFICATE-----",
    ],
)
def test_files_without_one_certificate(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    path.write_bytes(data)
    with pytest.raises(NotAuthentic):
        certificates.read([read_certificate(path)] * 2)


def test_a_certificate_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    der = old_chain().shown[0]
    for name, data in (("a.pem", pem(der).encode()), ("a.der", der)):
        (tmp_path / name).write_bytes(data)
        assert read_certificate(tmp_path / name) == der
    assert base64.b64encode(der).decode()[:40] in pem(der)
    assert isinstance(key("slot"), ec.EllipticCurvePrivateKey)
