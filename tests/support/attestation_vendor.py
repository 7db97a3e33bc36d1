"""A device vendor of the tests' own: roots, intermediates, F9 and key certificates, right or wrong on purpose.

Plain X.509 with real signatures. Every certificate is made from a ``Certificate``, a handful of values of which a test
changes the one that it is about.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = VECTOR_DIRECTORY / "attestation"
ROOTS = VECTORS / "roots"
SAMPLES = VECTORS / "samples"

SERIAL = 12345678
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DATES = datetime(2016, 3, 14, tzinfo=UTC), datetime(2052, 4, 17, tzinfo=UTC)

ARC = "1.3.6.1.4.1.41482.3."
FIRMWARE, SERIAL_NUMBER, POLICY, FORM = (ARC + str(n) for n in (3, 7, 8, 9))

ROOT_NAME = "Example PIV Root CA"
F9_NAME = "Yubico PIV Attestation"


@functools.cache
def key(label: str) -> Any:
    """The private key of that label: P-256, or RSA 2048 where the label begins with ``rsa``."""
    if label.startswith("rsa"):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP384R1() if label.startswith("p384") else ec.SECP256R1())


def spki(public: Any) -> bytes:
    found: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def integer(number: int) -> bytes:
    """As DER."""
    value = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    return bytes([2, len(value)]) + value


@dataclass(frozen=True)
class Certificate:
    """``subject`` and ``issuer`` are common names.

    ``ca``: a path length, -1 for BasicConstraints that say no authority, None for no BasicConstraints.
    """

    subject: str
    issuer: str
    public: Any
    signer: Any
    ca: int | None = None
    extensions: Mapping[str, bytes] = field(default_factory=dict)
    critical: frozenset[str] = frozenset()
    usage: bool | None = None  # KeyUsage: None leaves it out, else whether it says keyCertSign
    dates: tuple[datetime, datetime] = DATES
    digest: Any = hashes.SHA256
    padding: Any = None  # of an RSA signer; None: PKCS #1 v1.5

    def der(self) -> bytes:
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in (self.subject, self.issuer)]
        builder = (
            x509.CertificateBuilder(subject_name=names[0], issuer_name=names[1], public_key=self.public)
            .serial_number(0x0123456789ABCDEF)
            .not_valid_before(self.dates[0])
            .not_valid_after(self.dates[1])
        )
        if self.ca is not None:
            ca = self.ca >= 0
            builder = builder.add_extension(x509.BasicConstraints(ca, self.ca if ca else None), critical=True)
        if self.usage is not None:
            usage = x509.KeyUsage(True, False, False, False, False, self.usage, self.usage, False, False)
            builder = builder.add_extension(usage, critical=True)
        for oid, value in self.extensions.items():
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(extension, critical=oid in self.critical)
        return builder.sign(self.signer, self.digest(), rsa_padding=self.padding).public_bytes(
            serialization.Encoding.DER
        )


@dataclass(frozen=True)
class Chain:
    """``shown``: the key's certificate and F9's; ``roots``: what lies above, the root last. DER."""

    shown: tuple[bytes, bytes]
    roots: tuple[bytes, ...]

    @property
    def pins(self) -> dict[bytes, str]:
        """All of ``roots``, by number."""
        return {hashlib.sha256(der).digest(): f"pin {n}" for n, der in enumerate(self.roots)}

    def write_roots(self, directory: Path) -> Path:
        directory.mkdir()
        for n, der in enumerate(self.roots):
            (directory / f"{n}.der").write_bytes(der)
        return directory


def device_says(
    *, firmware: str = "5.4.3", serial: int | None = SERIAL, policy: bytes = b"\x02\x01", form: bytes | None = b"\x04"
) -> dict[str, bytes]:
    """The extensions of a key's certificate."""
    found = {FIRMWARE: bytes(map(int, firmware.split("."))), POLICY: policy}
    if serial is not None:
        found[SERIAL_NUMBER] = integer(serial)
    if form is not None:
        found[FORM] = form
    return found


def old_chain(
    public: Any = None,
    *,
    slot: Mapping[str, Any] | None = None,
    f9: Mapping[str, Any] | None = None,
    root: Mapping[str, Any] | None = None,
) -> Chain:
    """As before firmware 5.7.4: key ← F9 ← root. The mappings replace values of a ``Certificate``."""
    return Chain(_device(public, ROOT_NAME, key("root"), slot, f9), (_root(1, root),))


def new_chain(
    public: Any = None,
    *,
    slot: Mapping[str, Any] | None = None,
    f9: Mapping[str, Any] | None = None,
    lower: Mapping[str, Any] | None = None,
    upper: Mapping[str, Any] | None = None,
    root: Mapping[str, Any] | None = None,
) -> Chain:
    """As from firmware 5.7.4: key ← F9 ← lower ← upper ← root."""
    lower_name, upper_name = "Example PIV Attestation B 1", "Example Attestation Intermediate B 1"
    above = Certificate(upper_name, ROOT_NAME, key("upper").public_key(), key("root"), 2, usage=True)
    below = Certificate(lower_name, upper_name, key("lower").public_key(), key("upper"), 1, usage=True)
    return Chain(
        _device(public, lower_name, key("lower"), slot, f9),
        (replace(below, **(lower or {})).der(), replace(above, **(upper or {})).der(), _root(3, root)),
    )


def _root(length: int, changes: Mapping[str, Any] | None) -> bytes:
    made = Certificate(ROOT_NAME, ROOT_NAME, key("root").public_key(), key("root"), length, usage=True)
    return replace(made, **(changes or {})).der()


def _device(
    public: Any, issuer: str, signer: Any, slot: Mapping[str, Any] | None, f9: Mapping[str, Any] | None
) -> tuple[bytes, bytes]:
    extensions = {FIRMWARE: b"\x05\x04\x03"}
    middle = Certificate(F9_NAME, issuer, key("f9").public_key(), signer, 0, extensions)
    public = public or key("slot").public_key()
    leaf = Certificate("YubiKey PIV Attestation 82", F9_NAME, public, key("f9"), extensions=device_says())
    return replace(leaf, **(slot or {})).der(), replace(middle, **(f9 or {})).der()
