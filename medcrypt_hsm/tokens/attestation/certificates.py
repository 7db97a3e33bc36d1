"""Attestation certificates of a YubiKey: parsed strictly, and followed to a pinned root (docs/spec/attestation.md).

In: DER of the slot certificate and of F9, as the device gave them, and certificates that may lie above. Out:
``DeviceAttestation``, or NotAuthentic with the reason. The order is that of RFC 5280 section 6, from the leaf upwards;
where a device departs from it, the place says why.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from medcrypt_hsm.errors import Malformed, NotAuthentic
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.attestation.vendor import PINNED, DeviceAttestation

_HINT = "do not use this token for a vault; if the files are at fault, save them again from the device"
_ROOTS_HINT = "see that all of the vendor's published certificates are in the --roots directory"
_ARC = "1.3.6.1.4.1.41482.3"
_FIRMWARE, _SERIAL, _POLICY, _FORM = (x509.ObjectIdentifier(f"{_ARC}.{n}") for n in (3, 7, 8, 9))
_PIN_POLICIES = {1: "never", 2: "once", 3: "always", 4: "match-once", 5: "match-always"}
_TOUCH_POLICIES = {1: "never", 2: "always", 3: "cached"}
_FORM_FACTORS = {
    1: "USB-A keychain", 2: "USB-A nano", 3: "USB-C keychain", 4: "USB-C nano", 5: "USB-C and Lightning",
    6: "USB-A biometric", 7: "USB-C biometric",
}  # fmt: skip
_FIPS = 0x80
_SLOT_NAME = re.compile(r"YubiKey PIV Attestation (9[acde0-5]|8[2-9a-f])")
# Both are found on real devices. Whatever else the vendor's authorities sign is not an F9 certificate.
_F9_NAMES = ("Yubico PIV Attestation", "YubiKey PIV Attestation")
_UNDERSTOOD = (x509.BasicConstraints.oid, x509.KeyUsage.oid)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def verify(
    certificates: Sequence[bytes],
    roots: Sequence[bytes],
    pins: Mapping[bytes, str] = PINNED,
    *,
    now: datetime | None = None,
) -> DeviceAttestation:
    """``certificates``: the key's and F9's, DER. Of ``roots`` only those count whose SHA-256 is in ``pins``.

    ``now``: the time at which every certificate must be valid; this machine's clock by default. Raises NotAuthentic.
    """
    at = now or datetime.now(UTC)
    slot, f9 = _pair(certificates)
    _check_device(slot, f9, at)
    pinned = {
        fingerprint: _parse(der, pins[fingerprint])
        for fingerprint, der in ((sha256(der).digest(), der) for der in roots)
        if fingerprint in pins
    }
    return _told(slot, pins[_root_above(f9, pinned, pins, at)])


def read(certificates: Sequence[bytes], *, now: datetime | None = None) -> DeviceAttestation:
    """What the certificates say, with F9's signature on the slot's checked, and nothing above. Raises NotAuthentic."""
    slot, f9 = _pair(certificates)
    _check_device(slot, f9, now or datetime.now(UTC))
    return _told(slot, "")


def _pair(certificates: Sequence[bytes]) -> tuple[x509.Certificate, x509.Certificate]:
    if len(certificates) != 2:
        raise Malformed("an attestation is two certificates, the key's and F9's", _HINT)
    return _parse(certificates[0], t("the key's certificate")), _parse(certificates[1], t("F9's certificate"))


def _parse(der: bytes, what: str) -> x509.Certificate:
    """A certificate of which every part that is looked at later can be read."""
    with _reading(what):
        certificate = x509.load_der_x509_certificate(der)
        if not der.endswith(b"\0" + certificate.signature):
            raise ValueError("a signature is whole bytes")  # the parser lets the count of unused bits pass
        # The parser is lazy: a part is parsed when it is read. Reading one extension parses all of them, so that
        # duplicates are found here.
        for part in ("subject", "issuer", "not_valid_before_utc", "not_valid_after_utc"):
            getattr(certificate, part)
        unknown = [e.oid.dotted_string for e in certificate.extensions if e.critical and e.oid not in _UNDERSTOOD]
        certificate.public_key()
        padded = certificate.signature_algorithm_parameters
        strong = isinstance(certificate.signature_hash_algorithm, _HASHES)
    if unknown:
        raise NotAuthentic(
            t(
                "{certificate} has a critical extension that nobody here understands ({extension})",
                certificate=what,
                extension=unknown[0],
            ),
            _HINT,
        )
    if not strong or not isinstance(padded, (padding.PKCS1v15, ec.ECDSA)):
        raise NotAuthentic(t("{certificate} is signed in a way that is not accepted", certificate=what), _HINT)
    return certificate


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # What the parser only warns of, a serial below 1 for example, no device puts into a certificate.
            warnings.simplefilter("error", UserWarning)
            yield
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        UserWarning,
    ) as exc:
        raise Malformed(t("{certificate} cannot be read as a certificate", certificate=what), _HINT) from exc


def _name(certificate: x509.Certificate) -> str:
    """The one common name that is all of the subject, or what no name is."""
    attributes = list(certificate.subject)
    if len(attributes) != 1 or attributes[0].oid != x509.NameOID.COMMON_NAME:
        return ""
    return str(attributes[0].value)


def _raw(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    """The bytes inside extnValue's OCTET STRING."""
    for extension in certificate.extensions:
        if extension.oid == oid:
            return bytes(extension.value.public_bytes())
    return None


def _check_device(slot: x509.Certificate, f9: x509.Certificate, at: datetime) -> None:
    """What the device holds: the key's certificate, signed by F9."""
    if _SLOT_NAME.fullmatch(_name(slot)) is None:
        raise NotAuthentic(t("{name!r} is not the name of an attested slot", name=_name(slot)), _HINT)
    if _name(f9) not in _F9_NAMES:
        raise NotAuthentic(t("{name!r} is not the name of an F9 certificate", name=_name(f9)), _HINT)
    for certificate, what in ((slot, t("the key's certificate")), (f9, t("F9's certificate"))):
        _check_dates(certificate, what, at)
    if (constraints := _constraints(slot)) is not None and constraints.ca:
        raise NotAuthentic("the key's certificate may sign others, and no device makes such", _HINT)
    if _constraints(f9) is None:
        # YubiKey 4 came with F9 certificates that lack BasicConstraints; every later one has them.
        firmware = _raw(f9, _FIRMWARE)
        if firmware is None or len(firmware) != 3 or firmware[0] >= 5:
            raise NotAuthentic("F9's certificate may not sign others (no BasicConstraints)", _HINT)
    else:
        _check_authority(f9, t("F9's certificate"), 0)
    if not _signed(slot, f9):
        raise NotAuthentic("the key's certificate is not signed by the F9 certificate beside it", _HINT)


def _root_above(
    below: x509.Certificate,
    pinned: Mapping[bytes, x509.Certificate],
    pins: Mapping[bytes, str],
    at: datetime,
    authorities: int | None = None,
) -> bytes:
    """The fingerprint of the pinned, self-signed certificate that a path leads to from ``below``.

    ``authorities``: how many there are from ``below`` down to the key's certificate, which path lengths count.
    """
    if authorities is None:
        authorities = 0 if _constraints(below) is None else 1
    refused = None
    for fingerprint, issuer in pinned.items():
        if issuer.subject != below.issuer:
            continue
        try:
            if not _signed(below, issuer):
                raise NotAuthentic(
                    t("{certificate} did not sign what names it as issuer", certificate=pins[fingerprint]), _HINT
                )
            _check_dates(issuer, pins[fingerprint], at)
            _check_authority(issuer, pins[fingerprint], authorities)
            if issuer.subject == issuer.issuer:
                if not _signed(issuer, issuer):
                    raise NotAuthentic(t("{certificate} is not signed by itself", certificate=pins[fingerprint]), _HINT)
                return fingerprint
            above = {key: value for key, value in pinned.items() if key != fingerprint}
            return _root_above(issuer, above, pins, at, authorities + 1)
        except NotAuthentic as exc:
            refused = exc  # another of the same name may do: the root of 2016 was issued twice
    if refused is not None:
        raise refused
    issuer_name = below.issuer.rfc4514_string()
    raise NotAuthentic(
        t("none of the vendor's certificates that were given is its issuer, {issuer}", issuer=issuer_name), _ROOTS_HINT
    )


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Issuer's name, both statements of the algorithm, signature (RFC 5280 sections 4.1.1.2, 4.1.2.3 and 6.1.3)."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_dates(certificate: x509.Certificate, what: str, at: datetime) -> None:
    # A device has no clock and copies F9's dates into what it signs. So the dates do not tell when a key was made;
    # but an end that the vendor set counts.
    if at < certificate.not_valid_before_utc:
        raise NotAuthentic(t("{certificate} is not valid yet", certificate=what), "check this machine's clock")
    if at > certificate.not_valid_after_utc:
        raise NotAuthentic(t("{certificate} has expired", certificate=what), "check this machine's clock")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def _check_authority(certificate: x509.Certificate, what: str, below: int) -> None:
    """May it sign, with ``below`` authorities under it? (RFC 5280 sections 4.2.1.3 and 4.2.1.9)"""
    constraints = _constraints(certificate)
    if constraints is None or not constraints.ca:
        raise NotAuthentic(t("{certificate} may not sign others", certificate=what), _HINT)
    if constraints.path_length is not None and constraints.path_length < below:
        raise NotAuthentic(
            t("{certificate} may not have {count} authorities below it", certificate=what, count=below), _ROOTS_HINT
        )
    with contextlib.suppress(x509.ExtensionNotFound):
        if not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            raise NotAuthentic(t("{certificate} may not sign certificates", certificate=what), _HINT)


def _told(slot: x509.Certificate, root: str) -> DeviceAttestation:
    key = slot.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise NotAuthentic("the attested key is not a P-256 key, as all of this program's are", _HINT)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    firmware = _raw(slot, _FIRMWARE)
    if firmware is None or len(firmware) != 3:
        raise Malformed("the key's certificate does not tell the firmware", _HINT)
    policy = _raw(slot, _POLICY)
    if policy is None or len(policy) != 2 or policy[0] not in _PIN_POLICIES or policy[1] not in _TOUCH_POLICIES:
        raise Malformed("the key's certificate does not tell the PIN and touch policy", _HINT)
    return DeviceAttestation(
        public_key=spki,
        slot=_name(slot)[-2:],
        serial=_serial(_raw(slot, _SERIAL)),
        firmware=".".join(map(str, firmware)),
        pin_policy=_PIN_POLICIES[policy[0]],
        touch_policy=_TOUCH_POLICIES[policy[1]],
        form_factor=_form_factor(_raw(slot, _FORM)),
        root=root,
    )


def _serial(value: bytes | None) -> str:
    """A DER INTEGER above 0 that fits 32 bits. Absent on devices that were set not to show it."""
    if value is None:
        return ""
    number = int.from_bytes(value[2:], "big", signed=True)
    minimal = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    if value != bytes([2, len(minimal)]) + minimal or not 0 < number < 1 << 32:
        raise Malformed("the key's certificate does not tell a serial number", _HINT)
    return str(number)


def _form_factor(value: bytes | None) -> str:
    """One byte; absent before YubiKey 5. A form that is not known yet is shown as its number."""
    if value is None:
        return ""
    if len(value) != 1:
        raise Malformed("the key's certificate does not tell the form factor", _HINT)
    form = value[0] & ~_FIPS
    name = _FORM_FACTORS.get(form, t("form {form}", form=form))
    return t("{name}, FIPS", name=name) if value[0] & _FIPS else name
