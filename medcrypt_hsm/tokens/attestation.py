"""Was this key made on the token, and who says so? (docs/spec/attestation.md) No network, and no brand.

In: an open token, names of keys on it, the vendor's published certificates. Out: ``Attested`` for each key, with one of
``GRADES``. How certificates are read and verified is ``chain``'s affair, loaded only where there are some.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from medcrypt_hsm.errors import Malformed, NotAuthentic, TokenError, TokenRemoved, UsageError
from medcrypt_hsm.tokens import Token

GRADES = NOT_ATTESTED, TOKEN_CLAIMED, DEVICE_ATTESTED = ("not-attested", "token-claimed", "device-attested")
"""Worst first."""

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


@dataclass(frozen=True, slots=True)
class Attested:
    """The grade of one key and the reasons, in words, why it is no better. Empty: nothing tells."""

    name: str
    grade: str
    reasons: tuple[str, ...]
    public_key: str = ""  # SHA-256 of its SubjectPublicKeyInfo, in hex, as an audit key's fingerprint
    slot: str = ""
    serial: str = ""
    firmware: str = ""
    pin_policy: str = ""
    touch_policy: str = ""
    form_factor: str = ""
    root: str = ""
    forged: bool = False  # certificates were shown, and they do not prove what they should
    hint: str = ""  # what to do about the first reason, where there is more to say than not to use the key
    certificates: tuple[bytes, ...] = field(default=(), repr=False)  # as the token gave them, DER


def worst(grades: Iterable[str]) -> str:
    """The worst of them; of none, ``not-attested``."""
    return min(grades, key=GRADES.index, default=NOT_ATTESTED)


def together(attested: Sequence[Attested]) -> tuple[str, tuple[str, ...]]:
    """The grade of several keys as one, and every reason why it is no better, once."""
    reasons = tuple(dict.fromkeys(reason for one in attested for reason in one.reasons))
    return worst(one.grade for one in attested), reasons


def grade(
    token: Token,
    names: Sequence[str],
    roots: Sequence[bytes] = (),
    pins: Mapping[bytes, str] = PINNED,
    *,
    on_record: Mapping[str, bytes] | None = None,
    now: datetime | None = None,
) -> list[Attested]:
    """One grade for each key called ``names``, in their order.

    ``roots``: what ``read_roots`` gave; none: chains are not followed, and ``token-claimed`` is the best grade.
    ``on_record``: public keys (SPKI) that keys of these names must have. Raises TokenRemoved.
    """
    return [_grade(token, name, roots, pins, (on_record or {}).get(name, b""), now) for name in names]


def _grade(
    token: Token, name: str, roots: Sequence[bytes], pins: Mapping[bytes, str], recorded: bytes, now: datetime | None
) -> Attested:
    try:
        problems = list(token.evidence(name).problems)
        public = _public_key(token, name)
        certificates = token.attestation(name)
    except KeyError:
        return Attested(name, NOT_ATTESTED, ("it is not on the token",))
    except TokenRemoved:
        raise
    except TokenError as exc:
        return Attested(name, NOT_ATTESTED, (exc.message,))
    if recorded and public != recorded:
        problems.append("it is not the key that the vault has on record")
    if certificates:
        serial = token.info.serial
        if not public or not serial:
            problems.append("the token does not show the public key and the serial that its certificate must match")
        return judge(certificates, roots, pins, name=name, serial=serial, public_key=public, problems=problems, now=now)
    if problems:
        return Attested(name, NOT_ATTESTED, tuple(problems), _hash(public))
    claimed = "the token says so itself, and shows no certificate of its maker"
    return Attested(name, TOKEN_CLAIMED, (claimed,), _hash(public))


def _public_key(token: Token, name: str) -> bytes:
    """None of a KEK that is one secret key."""
    try:
        return token.public_key(name)
    except KeyError:
        return b""


def judge(
    certificates: Sequence[bytes],
    roots: Sequence[bytes],
    pins: Mapping[bytes, str] = PINNED,
    *,
    name: str = "",
    serial: str = "",
    public_key: bytes = b"",
    problems: Sequence[str] = (),
    now: datetime | None = None,
) -> Attested:
    """The grade of a key by its certificates, DER. ``problems``: what is wrong with it already, in words.

    ``serial`` and ``public_key``: of the token that showed the certificates; empty for files, of which ``roots`` alone
    can prove anything.
    """
    from medcrypt_hsm.tokens import chain

    shown = tuple(certificates)
    try:
        device = chain.verify(shown, roots, pins, now=now) if roots else chain.read(shown, now=now)
    except NotAuthentic as exc:
        reasons = (exc.message, *problems)
        return Attested(name, NOT_ATTESTED, reasons, _hash(public_key), forged=True, hint=exc.hint, certificates=shown)
    forged = []
    if public_key and device.public_key != public_key:
        forged.append("its certificate is for another key than the one the token uses")
    if serial and device.serial and device.serial != serial:
        forged.append(f"its certificate is for the device with serial {device.serial}, and this is {serial}")
    wrong = [*forged, *problems]
    if device.pin_policy == "never":
        wrong.append("it can be used without the PIN (PIN policy never)")
    unproven = []
    if not roots:
        unproven.append("its certificates were not followed to the vendor's root, which --roots would name")
    if not device.serial:
        unproven.append("its certificate names no serial, so the device is any one of its batch")
    nothing_shown = not roots and not serial
    best = TOKEN_CLAIMED if unproven else DEVICE_ATTESTED
    grade = NOT_ATTESTED if wrong or nothing_shown else best
    hint = "name the directory of the vendor's certificates with --roots" if nothing_shown else ""
    return Attested(
        name, grade, (*wrong, *unproven), _hash(device.public_key), device.slot, device.serial, device.firmware,
        device.pin_policy, device.touch_policy, device.form_factor, device.root, bool(forged), hint, shown,
    )  # fmt: skip


def _hash(public_key: bytes) -> str:
    return sha256(public_key).hexdigest() if public_key else ""


def read_roots(directory: Path, pins: Mapping[bytes, str] = PINNED) -> tuple[bytes, ...]:
    """The pinned certificates in the files of ``directory``, DER. Nothing else in it is looked at.

    Files end in .pem, .crt, .cer or .der; a PEM file may hold several. Raises UsageError when there is none.
    """
    hint = "download the vendor's published certificates into it, as docs/spec/attestation.md says"
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
        found = {der: None for path in files for der in _certificates(_bounded(path)) if sha256(der).digest() in pins}
    except OSError as exc:
        raise UsageError(f"the vendor's certificates in {directory} cannot be read: {exc.strerror}", hint) from exc
    if not found:
        raise UsageError(f"no certificate in {directory} is one of the vendor's that this program knows", hint)
    return tuple(found)


def read_certificate(path: Path) -> bytes:
    """The one certificate in a file, PEM or DER, as DER; not parsed yet. Raises Malformed, OSError."""
    found = list(_certificates(_bounded(path)))
    if len(found) != 1 or not found[0]:
        raise Malformed(f"{path} does not hold one certificate", "save it again with 'medcrypt token attest --save'")
    return found[0]


def pem(certificate: bytes) -> str:
    """DER as PEM (RFC 7468)."""
    text = base64.b64encode(certificate).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST)


def _certificates(data: bytes) -> Iterator[bytes]:
    if b"-----BEGIN" not in data:
        yield data
        return
    for block in _PEM.findall(data):
        with contextlib.suppress(binascii.Error):
            yield base64.b64decode(b"".join(block.split()), validate=True)
