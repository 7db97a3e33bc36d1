"""What an agent does for one connection: the few token operations that a day's commands need, and no other.

In: frames, an open token and the vault that it was opened for. Out: answers. Names of other vaults are refused. Handles
are numbers that only this connection knows; they end with it. Not here: sockets that wait, and time (agent.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from medcrypt_hsm.crypto.handles import AeadKey, MacKey, WrappingKey, open_each
from medcrypt_hsm.errors import Failed, TokenError
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name, kek_prefix
from medcrypt_hsm.tokens.session import protocol
from medcrypt_hsm.tokens.session.protocol import Frame, Op, ProtocolError, encode, number, text

MOST_HANDLES = 10_000  # of one connection
_HALVES = 2  # of a key pair: handles that a token may have kept
Answer = Iterable[bytes]


class KekGone(Exception):
    """The root KEK that a command asked for is not there: the vault was re-keyed. Carries what the command is told."""


def _refused() -> TokenError:
    return TokenError("a session does not do that", "run the command again with --no-session")


class Service:
    """One connection's view of the token."""

    def __init__(self, token: Token, vault_id: bytes) -> None:
        self._token = token
        self._audit = audit_key_name(vault_id)
        self._anchor = anchor_name(vault_id)
        self._keks = kek_prefix(vault_id)
        self._handles: dict[int, Any] = {}
        self._next = 1

    def answer(self, frame: Frame) -> bytes:
        """The frame that answers. Raises ProtocolError for what is no request, and KekGone."""
        do = _REQUESTS.get(frame.op)
        if do is None:
            raise ProtocolError("no request")
        try:
            for _ in range(_HALVES):  # a handle found long ago may be stale: another process may have made the key anew
                with suppress(KeyError):
                    return encode(Op.DONE, do(self, *frame.fields))
            return encode(Op.DONE, do(self, *frame.fields))
        except ProtocolError:
            raise
        except KeyError as exc:
            if frame.op is Op.UNWRAP_KEYSET:
                raise KekGone(protocol.encode_error(exc)) from exc
            return protocol.encode_error(exc)
        except Exception as exc:
            return protocol.encode_error(exc)

    def close(self) -> None:
        """Destroy every handle that is left."""
        handles, self._handles = self._handles, {}
        for handle in handles.values():
            try:
                handle.destroy()
            except Exception:  # noqa: S112 - the token is gone, or its keys are
                continue

    # The token

    def _check(self) -> Answer:
        self._token.refuse_gone()
        return ()

    def _names(self) -> Answer:
        return [name.encode() for name in self._token.names()]

    def _profiles(self) -> Answer:
        return [profile.encode() for profile in self._token.profiles()]

    def _missing(self, profile: bytes) -> Answer:
        return [words.encode() for words in self._token.missing(text(profile))]

    def _evidence(self, name: bytes) -> Answer:
        return [protocol.encode_evidence(self._token.evidence(self._key_name(name)))]

    def _attestation(self, name: bytes) -> Answer:
        return self._token.attestation(self._key_name(name))

    def _public_key(self, name: bytes) -> Answer:
        return [self._token.public_key(self._key_name(name))]

    def _sign(self, name: bytes, data: bytes) -> Answer:
        if text(name) != self._audit:
            raise _refused()
        return [self._token.sign(self._audit, data)]

    def _read_objects(self, name: bytes) -> Answer:
        if text(name) != self._anchor:
            raise _refused()
        return self._token.read_objects(self._anchor)

    def _put_object(self, name: bytes, value: bytes) -> Answer:
        if text(name) != self._anchor:
            raise _refused()
        self._token.put_object(self._anchor, value)
        return ()

    def _key_name(self, field: bytes) -> str:
        name = text(field)
        if name != self._audit and not name.startswith(self._keks):
            raise _refused()
        return name

    # Handles

    def _unwrap_keyset(self, kek: bytes, wrapped: bytes, info: bytes) -> Answer:
        name = text(kek)
        if not name.startswith(self._keks):
            raise _refused()
        keyset = self._token.unwrap_keyset(name, wrapped, info)
        return [self._keep(handle) for handle in (keyset.wrapping, keyset.mac, keyset.sealing)]

    def _keep(self, handle: Any) -> bytes:
        if len(self._handles) >= MOST_HANDLES:
            handle.destroy()
            raise Failed("a command uses too many keys at once for a session", "run it again with --no-session")
        self._handles[self._next] = handle
        self._next += 1
        return (self._next - 1).to_bytes(4, "big")

    def _handle(self, field: bytes, method: str) -> Any:
        handle = self._handles.get(number(field))
        if not hasattr(handle, method):
            raise RuntimeError("this key was destroyed, or is for something else")
        return handle

    def _seal(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> Answer:
        aead: AeadKey = self._handle(key, "seal")
        return [aead.seal(nonce, plaintext, aad)]

    def _open(self, key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> Answer:
        aead: AeadKey = self._handle(key, "open")
        return [aead.open(nonce, sealed, aad)]

    def _open_many(self, *fields: bytes) -> Answer:
        """A key, and of each text nonce, sealed and aad; answered with 1 and the text, or with 0."""
        if len(fields) % 3 != 1:
            raise ProtocolError("texts that are not whole")
        aead: AeadKey = self._handle(fields[0], "open")
        texts = list(zip(fields[1::3], fields[2::3], fields[3::3], strict=True))
        return [b"\0" if opened is None else b"\1" + opened for opened in open_each(aead, texts)]

    def _mac(self, key: bytes, data: bytes) -> Answer:
        mac: MacKey = self._handle(key, "mac")
        return [mac.mac(data)]

    def _wrap(self, key: bytes, plain: bytes) -> Answer:
        wrapping: WrappingKey = self._handle(key, "wrap")
        return [wrapping.wrap(plain)]

    def _unwrap_aead(self, key: bytes, wrapped: bytes) -> Answer:
        wrapping: WrappingKey = self._handle(key, "unwrap_aead")
        return [self._keep(wrapping.unwrap_aead(wrapped))]

    def _unwrap_mac(self, key: bytes, wrapped: bytes) -> Answer:
        wrapping: WrappingKey = self._handle(key, "unwrap_mac")
        return [self._keep(wrapping.unwrap_mac(wrapped))]

    def _destroy(self, key: bytes) -> Answer:
        handle = self._handles.pop(number(key), None)
        if handle is not None:
            handle.destroy()
        return ()


_REQUESTS: dict[Op, Callable[..., Answer]] = {
    Op.CHECK: Service._check,
    Op.NAMES: Service._names,
    Op.PROFILES: Service._profiles,
    Op.MISSING: Service._missing,
    Op.EVIDENCE: Service._evidence,
    Op.ATTESTATION: Service._attestation,
    Op.PUBLIC_KEY: Service._public_key,
    Op.SIGN: Service._sign,
    Op.READ_OBJECTS: Service._read_objects,
    Op.PUT_OBJECT: Service._put_object,
    Op.UNWRAP_KEYSET: Service._unwrap_keyset,
    Op.SEAL: Service._seal,
    Op.OPEN: Service._open,
    Op.OPEN_MANY: Service._open_many,
    Op.MAC: Service._mac,
    Op.WRAP: Service._wrap,
    Op.UNWRAP_AEAD: Service._unwrap_aead,
    Op.UNWRAP_MAC: Service._unwrap_mac,
    Op.DESTROY: Service._destroy,
}
