"""Was this key made on the token, and who says so? (docs/spec/attestation.md) No network, and no brand.

In: an open token, names of keys on it, the vendor's published certificates. Out: ``Attested`` for each key, with one of
``GRADES``. Not here: how certificates are read and followed (certificates.py, loaded only where there are some).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from medcrypt_hsm.errors import NotAuthentic, TokenError, TokenRemoved
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.attestation.vendor import PINNED

GRADES = NOT_ATTESTED, TOKEN_CLAIMED, DEVICE_ATTESTED = ("not-attested", "token-claimed", "device-attested")
"""Worst first."""


@dataclass(frozen=True, slots=True)
class Attested:
    """The grade of one key and the reasons, in words, why it is no better. A field is empty where nothing tells it."""

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
    from medcrypt_hsm.tokens.attestation.certificates import read, verify

    shown = tuple(certificates)
    try:
        device = verify(shown, roots, pins, now=now) if roots else read(shown, now=now)
    except NotAuthentic as exc:
        reasons = (exc.message, *problems)
        return Attested(name, NOT_ATTESTED, reasons, _hash(public_key), forged=True, hint=exc.hint, certificates=shown)
    forged = []
    if public_key and device.public_key != public_key:
        forged.append("its certificate is for another key than the one the token uses")
    if serial and device.serial and device.serial != serial:
        forged.append(
            t(
                "its certificate is for the device with serial {other}, and this is {serial}",
                other=device.serial,
                serial=serial,
            )
        )
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
