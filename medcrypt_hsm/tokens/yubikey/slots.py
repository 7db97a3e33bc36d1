"""The key in a slot: what the device says of it, made, used, destroyed. yubikit's errors pass through.

Everything is asked of the device, never of the certificate in the slot, which anybody with the management key can
write: from firmware 5.3 on by its metadata, before that by an attestation. Only retired slots are written to.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from yubikit.core import BadResponseError, NotSupportedError, Tlv
from yubikit.core.smartcard import SW, ApduError
from yubikit.piv import (
    INS_ATTEST,
    INS_AUTHENTICATE,
    KEY_TYPE,
    OBJECT_ID,
    PIN_POLICY,
    SLOT,
    TAG_AUTH_CHALLENGE,
    TAG_AUTH_RESPONSE,
    TAG_DYN_AUTH,
    TOUCH_POLICY,
    PivSession,
)

from medcrypt_hsm.tokens.yubikey import storage
from medcrypt_hsm.tokens.yubikey.directory import NOTHING
from medcrypt_hsm.tokens.yubikey.discovery import METADATA

RETIRED = tuple(range(SLOT.RETIRED1, SLOT.RETIRED20 + 1))  # 0x82 to 0x95
DELETING = (5, 7, 0)  # the first firmware with INS F6
TOUCH = {"never": TOUCH_POLICY.NEVER, "cached": TOUCH_POLICY.CACHED, "always": TOUCH_POLICY.ALWAYS}
_TOUCH_NAMES = {policy: name for name, policy in TOUCH.items()}
_POLICIES = x509.ObjectIdentifier("1.3.6.1.4.1.41482.3.8")  # in attestations: PIN policy, touch policy
_ALWAYS = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SlotKey:
    """``public_key`` is DER SubjectPublicKeyInfo; ``touch`` one of TOUCH, or "" for anything else."""

    public_key: bytes
    p256: bool
    generated: bool
    pin_once: bool
    touch: str

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.public_key).digest()


UNKNOWN = SlotKey(b"", p256=False, generated=False, pin_once=False, touch="")
"""A key of which the device does not tell: never one of ours, and never in a slot that is free."""


def fingerprint_of(key: SlotKey | None) -> bytes:
    return NOTHING if key is None else key.fingerprint


def read_key(session: PivSession, slot: int) -> SlotKey | None:
    """None: nothing there. Call it with the PIN verified."""
    if session.version >= METADATA:
        try:
            metadata = session.get_slot_metadata(SLOT(slot))
            public_key = _spki(metadata.public_key)
        except ApduError as exc:
            if exc.sw in (SW.REFERENCE_DATA_NOT_FOUND, SW.FILE_NOT_FOUND):
                return None
            raise
        except (ValueError, KeyError):  # of a kind that is newer than this program
            return UNKNOWN
        return SlotKey(
            public_key,
            metadata.key_type == KEY_TYPE.ECCP256,
            metadata.generated,
            metadata.pin_policy == PIN_POLICY.ONCE,
            _TOUCH_NAMES.get(metadata.touch_policy, ""),
        )
    attested = attestation(session, slot)
    if attested is None:
        return UNKNOWN if _works(session, slot) else None
    certificate = x509.load_der_x509_certificate(attested)
    public, policies = certificate.public_key(), _policies(certificate)
    return SlotKey(
        _spki(public),
        isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1),
        True,  # the device attests no other
        policies[:1] == bytes([PIN_POLICY.ONCE]),
        next((name for name, policy in TOUCH.items() if policies[1:] == bytes([policy])), ""),
    )


def attestation(session: PivSession, slot: int) -> bytes | None:
    """The certificate, DER, in which the device says that it made the key; None if it does not."""
    try:
        answer: bytes = session.protocol.send_apdu(0, INS_ATTEST, slot, 0)
    except ApduError:
        return None
    return bytes(answer)


def attesting_certificate(session: PivSession) -> bytes | None:
    """The certificate of the key that signs attestations, DER."""
    try:
        certificate = session.get_certificate(SLOT.ATTESTATION)
    except ApduError:
        return None
    return certificate.public_bytes(serialization.Encoding.DER)


def tells_public_keys(session: PivSession) -> bool:
    """Before 5.3 only attestations do, and their own key's certificate can be deleted."""
    return session.version >= METADATA or attesting_certificate(session) is not None


def occupied(session: PivSession, slot: int) -> bool:
    """Is anything at all in the slot: a key, wherever it comes from, or a certificate?"""
    return _has_certificate(session, slot) or read_key(session, slot) is not None


def _works(session: PivSession, slot: int) -> bool:
    """Is there a key? Before 5.3 nothing tells of one that was imported, or cannot be attested, but its use.

    One that wants its PIN again, or a finger, says so.
    """
    return any(
        _answers(session, slot, key_type) in (SW.OK, SW.SECURITY_CONDITION_NOT_SATISFIED)
        for key_type in (KEY_TYPE.ECCP256, KEY_TYPE.ECCP384, KEY_TYPE.RSA1024, KEY_TYPE.RSA2048)
    )


def _has_certificate(session: PivSession, slot: int) -> bool:
    return bool(storage.read(session, OBJECT_ID.from_slot(SLOT(slot))))


def _answers(session: PivSession, slot: int, key_type: KEY_TYPE) -> int:
    try:
        number = bytes(key_type.bit_len // 8 - 1) + b"\1"  # below every RSA modulus
        request = Tlv(TAG_DYN_AUTH, Tlv(TAG_AUTH_RESPONSE) + Tlv(TAG_AUTH_CHALLENGE, number))
        session.protocol.send_apdu(0, INS_AUTHENTICATE, key_type, slot, request)
    except ApduError as exc:
        return exc.sw
    return SW.OK


def generate(session: PivSession, slot: int, touch: str) -> None:
    session.generate_key(SLOT(slot), KEY_TYPE.ECCP256, PIN_POLICY.ONCE, TOUCH[touch])


def put_certificate(session: PivSession, slot: int, name: str, public_key: bytes) -> None:
    """Other programs see keys by certificates. Its signature means nothing: a key that is thrown away makes it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_ALWAYS[0]).not_valid_after(_ALWAYS[1])
    public = serialization.load_der_public_key(public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    certificate = builder.public_key(public).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    session.put_certificate(SLOT(slot), certificate)


def sign(session: PivSession, slot: int, data: bytes) -> bytes:
    """ECDSA over SHA-256: 64 bytes r || s."""
    r, s = decode_dss_signature(session.sign(SLOT(slot), KEY_TYPE.ECCP256, data, hashes.SHA256()))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def agree(session: PivSession, slot: int, point: bytes) -> bytes:
    """ECDH with the key at ``point``: the x-coordinate, 32 bytes (SP 800-56A section 5.7.1.2)."""
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    return bytes(session.calculate_secret(SLOT(slot), peer))


def destroy(session: PivSession, slot: int) -> SlotKey | None:
    """Delete the key, or overwrite it where the firmware cannot delete; what is there then."""
    if session.version >= DELETING:
        session.delete_key(SLOT(slot))
    else:
        generate(session, slot, "never")
    return read_key(session, slot)


def still_works(session: PivSession, slot: int, public_key: bytes) -> bool:
    """Can what is in the slot now sign for ``public_key``? Asked after destroying its key; waits for no finger."""
    public = serialization.load_der_public_key(public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    data = os.urandom(32)
    try:
        signature = session.sign(SLOT(slot), KEY_TYPE.ECCP256, data, hashes.SHA256())
    except ApduError as exc:
        # A key that is there and wants a finger also refuses.
        return bool(exc.sw == SW.SECURITY_CONDITION_NOT_SATISFIED)
    try:
        public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def delete_certificate(session: PivSession, slot: int, name: str) -> None:
    """If it is the one that ``put_certificate`` made for ``name``."""
    if not _has_certificate(session, slot):
        return
    try:
        found = session.get_certificate(SLOT(slot)).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (BadResponseError, NotSupportedError):  # it is not ours: every certificate of ours can be read
        return
    if [attribute.value for attribute in found] == [name]:
        session.delete_certificate(SLOT(slot))


def _spki(public: object) -> bytes:
    return public.public_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _policies(certificate: x509.Certificate) -> bytes:
    try:
        extension = certificate.extensions.get_extension_for_oid(_POLICIES).value
    except (x509.ExtensionNotFound, ValueError):
        return b""
    return extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
