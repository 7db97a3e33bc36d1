"""The vendor's certificates that count, and certificates as files (docs/spec/attestation.md). Nothing is parsed here.

In: a directory that somebody downloaded, or one file. Out: DER; of a directory only what is pinned by its hash. Also
``DeviceAttestation``, which certificates.py makes, so that whoever only names a grade loads no X.509.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.given import read_given
from medcrypt_hsm.sentences import t

PINNED: Mapping[bytes, str] = {
    bytes.fromhex(fingerprint): name
    for fingerprint, name in (
        ("7e996a28e3055223733c9aec897900eda9b746e3e15d419556ac6a1179879a50", "Yubico PIV Root CA Serial 263751 (old)"),
        ("63ece914e54dd87915f34033c85af4c0696ba1512f8add66ced738331207b546", "Yubico PIV Root CA Serial 263751"),
        ("0fa1386f80eb8713263ae5c1d84deb455bdf08aea50ab05503cefee82b092d42", "Yubico U2F Root CA Serial 457200631"),
        ("62760c6a6ef91679f454c8902b80fd009825b3f25da90f1fbace2ec6586cd5a8", "Yubico Attestation Root 1"),
        ("4698a1d3389c3ec60016c216250f1d0439922832d65142327436376dc2942b55", "Yubico Attestation Intermediate A 1"),
        ("d4cc3f456fdaf4e7812a21aab1dfe9d8e27d24e2fd2d6f21c9940109f0daa754", "Yubico Attestation Intermediate B 1"),
        ("6de693f05376f5d8ca29069261e1c8626c75d503bd2edbfd75354cad1f722870", "Yubico PIV Attestation A 1"),
        ("2d55b7998f4e42569d6d8fa382b6dc77d1dacf07358b19701163892922b17052", "Yubico PIV Attestation B 1"),
        ("0c90b7d184a36edf50a35f9be935f0c5689bfdcfe5bdd073366cafb49061a440", "Yubico PIV Attestation B2 1"),
    )
}
"""SHA-256 of the vendor's certificates that count, with their names. The only trust anchors there are."""
_SUFFIXES = (".pem", ".crt", ".cer", ".der")
_LARGEST = 1 << 20  # bytes; all that the vendor publishes is some 30 KiB
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DeviceAttestation:
    """What a device says of a key that was made on it. ``public_key``: DER SubjectPublicKeyInfo.

    ``serial`` is empty where the device was set to keep it to itself, ``form_factor`` on devices older than that;
    ``root``: what its pin is called, empty when the chain has not been followed.
    """

    public_key: bytes
    slot: str
    serial: str
    firmware: str
    pin_policy: str
    touch_policy: str
    form_factor: str
    root: str


def read_roots(directory: Path, pins: Mapping[bytes, str] = PINNED) -> tuple[bytes, ...]:
    """The pinned certificates in the files of ``directory``, DER. Nothing else in it is looked at.

    Files end in .pem, .crt, .cer or .der; a PEM file may hold several. Raises UsageError when there is none.
    """
    hint = "download the vendor's published certificates into it, as docs/spec/attestation.md says"
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
        found = {der: None for path in files for der in _certificates(_bounded(path)) if sha256(der).digest() in pins}
    except OSError as exc:
        raise UsageError(
            t(
                "the vendor's certificates in {directory} cannot be read: {reason}",
                directory=directory,
                reason=exc.strerror,
            ),
            hint,
        ) from exc
    if not found:
        raise UsageError(
            t("no certificate in {directory} is one of the vendor's that this program knows", directory=directory), hint
        )
    return tuple(found)


def read_certificate(path: Path) -> bytes:
    """The one certificate in a file, PEM or DER, as DER; not parsed yet. Raises Malformed, OSError."""
    found = list(_certificates(_bounded(path)))
    if len(found) != 1 or not found[0]:
        raise Malformed(
            t("{path} does not hold one certificate", path=path), "save it again with 'medcrypt token attest --save'"
        )
    return found[0]


def pem(certificate: bytes) -> str:
    """DER as PEM (RFC 7468)."""
    text = base64.b64encode(certificate).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def _bounded(path: Path) -> bytes:
    return read_given(path, _LARGEST)[:_LARGEST]


def _certificates(data: bytes) -> Iterator[bytes]:
    if b"-----BEGIN" not in data:
        yield data
        return
    for block in _PEM.findall(data):
        with contextlib.suppress(binascii.Error):
            yield base64.b64decode(b"".join(block.split()), validate=True)
