"""Signed statements: what requester and custodians hand each other as files (docs/spec/breakglass.md, "Statements").

    file = statement LF  signature LF  enclosure LF

In: bytes from elsewhere, or what an audit entry quotes. Out: ``Signed[Request | Approval | Drill]``, of the right form
to the byte; not believed before ``verify`` with a key that is known from elsewhere. Not here: whether an approval
counts (consent.py, chain_uses.py), tokens, files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, ClassVar, Generic, TypeVar

from medcrypt_hsm.crypto.p256 import fingerprint, load_p256, verify_signature
from medcrypt_hsm.errors import Malformed, NotAuthentic, UsageError
from medcrypt_hsm.notation import canonical, ctx, octets, parse_time
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.fields import EXACT_TEXT, EXACT_TIME, Codec, Fields, exact_octets, exact_text
from medcrypt_hsm.vault.audit.trust_custody import CEREMONY_BYTES, GUEST, MOST, PATIENT, PRACTICE

LARGEST = 1 << 16  # bytes of a file
LONGEST_HOURS = 72  # BG-4
LONGEST_REASON = 1000
LONGEST_PERSON = 200  # characters
KEY_BYTES = 1216  # of an X-Wing public key
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


def is_name(text: str) -> bool:
    """May a token or a custodian be called so?"""
    return _NAME.fullmatch(text) is not None


def check_person(text: str) -> None:
    """Of who acts, before anything is signed or made. Raises UsageError."""
    check_text(text)
    if len(text) > LONGEST_PERSON:
        raise UsageError(
            t("a name of {count} characters is too long", count=len(text)), t("use at most {most}", most=LONGEST_PERSON)
        )


def check_text(text: str) -> None:
    """What comes from a command line may be bytes that are no text. Raises UsageError."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("what was given is not Unicode text", "give it as UTF-8")


def _share_number(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST:  # type(): True is an int to isinstance
        raise ValueError("not a share's number")
    return value


def _sequence(value: Any) -> int:
    if type(value) is not int or not 1 <= value < 1 << 63:  # likewise
        raise ValueError("its sequence")
    return value


_COMMON = Fields(
    ceremony=exact_octets(CEREMONY_BYTES), enclosed=exact_octets(32), vault=exact_octets(16).called("vault_id")
)
_SHARE_NUMBER = Codec(_share_number)


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what is in the enclosure: the statement comes into the log in the clear."""

    TYPE: ClassVar[str] = "medcrypt/breakglass/request"
    WHAT: ClassVar[str] = t("request")
    FIELDS: ClassVar[Fields] = Fields(
        created=EXACT_TEXT,
        expires=EXACT_TEXT,
        scope=EXACT_TEXT,
        sequence=Codec(_sequence),
        hash=exact_octets(32),
        signer=exact_octets(),
        key=exact_octets(KEY_BYTES),
    )

    vault_id: bytes
    ceremony: bytes
    created: str
    expires: str
    sequence: int  # the newest entry of a registered token in the requester's file, and its hash
    hash: bytes
    key: bytes  # X-Wing public key that approvals are sealed to
    scope: str
    signer: bytes  # SPKI DER
    enclosed: bytes

    def check(self) -> None:
        """What no field alone shows. Raises ValueError or NotAuthentic."""
        lasts = parse_time(self.expires) - parse_time(self.created)
        if not timedelta() < lasts <= timedelta(hours=LONGEST_HOURS) or self.scope not in (PATIENT, PRACTICE):
            raise ValueError("its time or scope")
        load_p256(self.signer)


@dataclass(frozen=True, slots=True)
class Approval:
    """A custodian's consent to one request; the share, sealed to it, is the enclosure."""

    TYPE: ClassVar[str] = "medcrypt/breakglass/approval"
    WHAT: ClassVar[str] = t("approval")
    FIELDS: ClassVar[Fields] = Fields(
        custodian=EXACT_TEXT,
        time=EXACT_TIME,
        request=exact_octets(32),
        commitment=exact_octets(32),
        audit_key=exact_octets(32),
        x=_SHARE_NUMBER,
    )

    vault_id: bytes
    ceremony: bytes
    request: bytes
    custodian: str
    x: int
    commitment: bytes
    audit_key: bytes  # fingerprint: of the token that the ceremony was held with, as the custodian's token remembers
    time: str
    enclosed: bytes


@dataclass(frozen=True, slots=True)
class Drill:
    """A custodian's share was opened and matches its commitment. The enclosure is empty."""

    TYPE: ClassVar[str] = "medcrypt/breakglass/drill"
    WHAT: ClassVar[str] = t("drill result")
    FIELDS: ClassVar[Fields] = Fields(
        actor=EXACT_TEXT, custodian=EXACT_TEXT, time=EXACT_TIME, commitment=exact_octets(32), x=_SHARE_NUMBER
    )

    vault_id: bytes
    ceremony: bytes
    custodian: str
    x: int
    commitment: bytes
    actor: str
    time: str
    enclosed: bytes


def _salt(value: Any) -> str:
    octets(value, 16)
    return str(value)


def _token_told(value: Any) -> dict[str, str]:
    return {member: exact_text(value[member]) for member in ("label", "model", "serial", "uri")}


@dataclass(frozen=True, slots=True)
class RequestedBy:
    """A request's enclosure: what a custodian reads, and the practice's log has sealed."""

    FIELDS: ClassVar[Fields] = Fields(
        name=EXACT_TEXT,
        patient=EXACT_TEXT,
        reason=EXACT_TEXT,
        requester=EXACT_TEXT,
        salt=Codec(_salt),
        token=Codec(_token_told),
    )

    name: str  # the requester's short name for the token
    patient: str  # its id; empty for the practice
    reason: str
    requester: str
    token: Mapping[str, str]  # label, model, serial and uri of the requester's token
    salt: str  # so that nobody finds the patient by trying ids

    def encode(self) -> bytes:
        return canonical(self.FIELDS.value(self))

    @classmethod
    def parse(cls, data: bytes) -> RequestedBy:
        """Raises Malformed."""
        try:
            by = cls(**cls.FIELDS.read(json.loads(data)))
            if by.encode() != data:  # members too many, another order
                raise ValueError("not canonical")
            if not is_name(by.name) or by.name.startswith(GUEST):
                raise ValueError("its name")
            if not 0 < len(by.reason) <= LONGEST_REASON:
                raise ValueError("its reason")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise _malformed(Request) from exc
        return by


def requested_by(request: Signed[Request]) -> RequestedBy:
    """A request's enclosure, which its scope fits. Raises Malformed."""
    by = RequestedBy.parse(request.enclosure)
    if (request.told.scope == PRACTICE) != (by.patient == ""):
        raise _malformed(Request)
    return by


T = TypeVar("T", Request, Approval, Drill)


@dataclass(frozen=True, slots=True)
class Signed(Generic[T]):
    """A statement, its signature, and what is enclosed (empty where it was not at hand)."""

    told: T
    statement: bytes
    signature: bytes
    enclosure: bytes = b""

    @property
    def id(self) -> bytes:
        return sha256(self.to_sign).digest()

    @property
    def to_sign(self) -> bytes:
        return ctx(self.told.TYPE, self.statement)

    def verify(self, spki: bytes) -> None:
        """Raises NotAuthentic."""
        verify_signature(spki, self.signature, self.to_sign)

    def file(self) -> bytes:
        return b"\n".join((self.statement, self.signature.hex().encode(), self.enclosure, b""))

    def quoted(self) -> dict[str, str]:
        """As an audit entry has it: without the enclosure."""
        return {"signature": self.signature.hex(), "statement": self.statement.decode()}


def encode(told: T) -> bytes:
    """The statement, which is what is signed, with its type (``to_sign``)."""
    return canonical({"type": told.TYPE, "version": 1} | _COMMON.value(told) | told.FIELDS.value(told))


def read(data: bytes, kind: type[T]) -> Signed[T]:
    """A file from elsewhere. Raises Malformed for anything but the bytes that ``Signed.file`` makes."""
    lines = data.split(b"\n")
    try:
        if len(data) > LARGEST or len(lines) != 4 or lines[3]:
            raise ValueError("not three lines")
        signed = _signed(lines[0], lines[1].decode("ascii"), lines[2], kind)
        if sha256(signed.enclosure).digest() != signed.told.enclosed:
            raise ValueError("another enclosure")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, NotAuthentic) as exc:
        raise _malformed(kind) from exc
    return signed


def from_log(quoted: Mapping[str, Any], kind: type[T]) -> Signed[T]:
    """What an audit entry quotes. Raises ValueError, KeyError, TypeError, AttributeError or NotAuthentic."""
    if set(quoted) != {"signature", "statement"}:
        raise ValueError("not a quoted statement")
    return _signed(quoted["statement"].encode(), quoted["signature"], b"", kind)


def _signed(statement: bytes, signature: str, enclosure: bytes, kind: type[T]) -> Signed[T]:
    try:
        value = json.loads(statement)
    except RecursionError as exc:
        raise ValueError("nested without end") from exc
    if not isinstance(value, dict) or value["type"] != kind.TYPE or value["version"] != 1:
        raise ValueError("another type or version")
    told = kind(**_COMMON.read(value), **kind.FIELDS.read(value))
    if isinstance(told, Request):
        told.check()
    if encode(told) != statement:  # members too many, another order, numbers that are true
        raise ValueError("not canonical")
    return Signed(told, statement, octets(signature, 64), enclosure)


def _malformed(kind: type[Request | Approval | Drill]) -> Malformed:
    return Malformed(
        t("that is not a break-glass {kind}, or it was altered", kind=kind.WHAT),
        "ask for the file again, and send it as a file: not as text in a message",
    )


def signer_id(request: Request) -> bytes:
    """The fingerprint of the key that signs a request, and the entries that follow."""
    return fingerprint(request.signer)
