"""Certificates that say a key was made on the device, under a test authority built like the vendor's.

slot certificate ← F9 (on the key, shared by a batch) ← root, or from firmware 5.7.4 two certificates in between.
The slot certificate carries Yubico's extensions, raw bytes but for the serial, a DER INTEGER
(https://developers.yubico.com/PIV/Introduction/PIV_attestation.html).
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from tests.support.virtual_yubikey import keys
from tests.support.virtual_yubikey.apdu import WRONG_DATA, Refused, tlv, tlv_dict
from tests.support.virtual_yubikey.firmware import P_384, RSA_2048, Firmware
from tests.support.virtual_yubikey.store import State, StoredKey

CertificateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

YUBICO = "1.3.6.1.4.1.41482.3"
FIRMWARE, SERIAL, POLICY, FORM_FACTOR = (ObjectIdentifier(f"{YUBICO}.{last}") for last in (3, 7, 8, 9))
F9, F9_OBJECT = 0xF9, 0x5FFF01

BEGIN = datetime.datetime(2016, 3, 14, tzinfo=datetime.UTC)  # as on real ones, beginning and end long ago and far off
END = datetime.datetime(2052, 4, 17, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class AttestationCa:
    """A root, what stands between, and one batch's F9 key with its certificate."""

    root: x509.Certificate
    between: Sequence[x509.Certificate]  # from the root's side; not on the device
    f9: x509.Certificate
    f9_key: CertificateKey = field(repr=False)

    @classmethod
    def make(cls, firmware: Firmware, *, basic_constraints: bool = True) -> AttestationCa:
        """``basic_constraints=False``: an F9 certificate as on early YubiKeys."""
        if firmware.since(5, 7, 4):
            root_key: CertificateKey = ec.generate_private_key(ec.SECP384R1())
            root = _certificate("Test Attestation Root 1", root_key, depth=3)
            middle_key = ec.generate_private_key(ec.SECP384R1())
            middle = _certificate("Test Attestation Intermediate B 1", middle_key, root, root_key, depth=2)
            issuer_key: CertificateKey = ec.generate_private_key(ec.SECP384R1())
            issuer = _certificate("Test PIV Attestation B 1", issuer_key, middle, middle_key, depth=1)
            f9_key: CertificateKey = ec.generate_private_key(ec.SECP384R1())
            between = [middle, issuer]
        else:
            issuer_key = rsa.generate_private_key(65537, 2048)
            root = issuer = _certificate("Test PIV Root CA Serial 263751", issuer_key, depth=None)
            f9_key = rsa.generate_private_key(65537, 2048)
            between = []
        f9 = _certificate(
            "Yubico PIV Attestation",
            f9_key,
            issuer,
            issuer_key,
            depth=0 if basic_constraints else None,
            ca=basic_constraints,
            extensions=[(FIRMWARE, bytes(firmware))],
        )
        return cls(root, between, f9, f9_key)

    @property
    def published(self) -> bytes:
        """PEM of everything that is not on the device: what an operator's directory of roots holds."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (self.root, *self.between))

    def fingerprints(self) -> list[bytes]:
        """SHA-256 of the published certificates, the root's first."""
        return [certificate.fingerprint(hashes.SHA256()) for certificate in (self.root, *self.between)]

    def install(self, state: State) -> None:
        """What the factory does: the F9 key and its certificate."""
        algorithm = RSA_2048 if isinstance(self.f9_key, rsa.RSAPrivateKey) else P_384
        state.keys[F9] = StoredKey(algorithm, keys.encoded(self.f9_key), 1, 1, False)
        certificate = self.f9.public_bytes(Encoding.DER)
        state.objects[F9_OBJECT] = tlv(0x70, certificate) + tlv(0x71, b"\0") + tlv(0xFE)


def slot_certificate(state: State, slot: int, stored: StoredKey) -> bytes:
    """DER, signed by the key in F9 in the name of the certificate in 5FFF01. Raises Refused where these are not fit."""
    f9_stored, wrapped = state.keys.get(F9), state.objects.get(F9_OBJECT)
    if f9_stored is None or wrapped is None:
        raise Refused(WRONG_DATA)
    f9_key = keys.loaded(f9_stored)
    try:
        f9 = x509.load_der_x509_certificate(tlv_dict(wrapped).get(0x70, b""))
    except ValueError as exc:
        raise Refused(WRONG_DATA) from exc
    if not isinstance(f9_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Refused(WRONG_DATA)
    serial = state.serial.to_bytes(4).lstrip(b"\0") or b"\0"
    if serial[0] & 0x80:
        serial = b"\0" + serial
    extensions = [
        (FIRMWARE, bytes(state.firmware)),
        (SERIAL, tlv(0x02, serial)),
        (POLICY, bytes([stored.pin_policy, stored.touch_policy])),
    ]
    if state.firmware.major >= 5:
        extensions.append((FORM_FACTOR, bytes([state.form_factor])))
    certificate = _certificate(
        f"YubiKey PIV Attestation {slot:02x}",
        keys.loaded(stored),
        f9,
        f9_key,
        depth=None,
        ca=False,
        extensions=extensions,
    )
    return certificate.public_bytes(Encoding.DER)


def _certificate(
    name: str,
    key: keys.PrivateKey,
    issuer: x509.Certificate | None = None,
    issuer_key: CertificateKey | None = None,
    *,
    depth: int | None,
    ca: bool = True,
    extensions: Sequence[tuple[ObjectIdentifier, bytes]] = (),
) -> x509.Certificate:
    """``depth`` is the path length. Without ``ca`` no BasicConstraints at all. Without an issuer it signs itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(secrets.randbits(127) or 1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
    )
    for oid, value in extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
    signing = issuer_key if issuer_key is not None else key
    assert isinstance(signing, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return builder.sign(signing, hashes.SHA256())
