"""Key handles over keys in locked, wiped host memory: what a token that cannot do AES leaves the host to do.

In: the three keys of a vault keyset as ``Secret``s. Out: ``KeysetHandles`` that do here what a token of profile
``aes-kw`` does inside. A handle owns its ``Secret`` and shows nothing; ``destroy`` wipes it, and closing the token
wipes what is left.

What stays where: between two operations a key is in its ``Secret`` alone. During an operation OpenSSL has the key and
what it expands it to in memory that is not locked, and clears that at the end; tests/crypto/test_hostkeys.py proves it.
So no AESGCM object is kept between operations, because it would keep an expanded key for as long; making a new one
costs about two microseconds.
"""

from __future__ import annotations

import hmac
from threading import Lock

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.crypto.handles import KeysetHandles
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.sentences import t

_TAG = 16


class HostKeys:
    """All keys that one open token has in host memory. They end with it: ``wipe`` when it is closed.

    ``lock`` is held while a key is used and while it is wiped: a key that another thread wipes half way through a use
    would be used as zeros.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._alive: set[Secret] = set()

    def handles(self, secrets: tuple[Secret, Secret, Secret]) -> KeysetHandles:
        """The handles on a keyset: wrapping, mac, sealing, 32 bytes each. They own the secrets from now on."""
        wrapping, mac, sealing = secrets
        return KeysetHandles(HostWrappingKey(self, wrapping), HostMacKey(self, mac), HostAeadKey(self, sealing))

    def keep(self, secret: Secret) -> None:
        with self.lock:
            self._alive.add(secret)

    def end(self, secret: Secret) -> None:
        with self.lock:
            secret.wipe()
            self._alive.discard(secret)

    def wipe(self) -> None:
        """Wipe every key whose handle was not destroyed."""
        with self.lock:
            while self._alive:
                self._alive.pop().wipe()

    def __repr__(self) -> str:
        return f"HostKeys({len(self._alive)})"


class _HostKey:
    """32 bytes of key in host memory. It shows no value; after ``destroy`` any use is a RuntimeError."""

    __slots__ = ("_keys", "_secret")

    def __init__(self, keys: HostKeys, secret: Secret) -> None:
        if len(secret.value) != 32:
            raise ValueError("a key has 32 bytes")
        self._keys = keys
        self._secret = secret
        keys.keep(secret)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def destroy(self) -> None:
        """Wipe it; a second time there is nothing to do."""
        self._keys.end(self._secret)


class HostAeadKey(_HostKey):
    """``AeadKey`` in host memory."""

    __slots__ = ()

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        if len(nonce) != 12:
            raise ValueError("a nonce has 12 bytes")
        with self._keys.lock:
            return AESGCM(self._secret.value).encrypt(nonce, plaintext, aad)

    def open(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        if len(nonce) != 12:
            raise ValueError("a nonce has 12 bytes")
        try:
            with self._keys.lock:
                return AESGCM(self._secret.value).decrypt(nonce, sealed, aad)
        except InvalidTag as exc:  # what is shorter than a tag, too
            raise NotAuthentic("not authentic: the host refused it while opening a message") from exc


class HostMacKey(_HostKey):
    """``MacKey`` in host memory."""

    __slots__ = ()

    def mac(self, data: bytes) -> bytes:
        with self._keys.lock:
            return hmac.digest(self._secret.value, data, "sha256")


class HostWrappingKey(_HostKey):
    """``WrappingKey`` in host memory: AES key wrap, RFC 3394."""

    __slots__ = ()

    def wrap(self, key: bytes) -> bytes:
        if len(key) != 32:
            raise ValueError("a key to wrap has 32 bytes")
        with self._keys.lock:
            return keywrap.aes_key_wrap(self._secret.value, key)

    def rewrap(self, wrapped: bytes, under: HostWrappingKey) -> bytes:
        """The same key, 40 bytes, wrapped under another wrapping key. Raises NotAuthentic."""
        with self._unwrap(wrapped) as key:
            return under.wrap(key.value)

    def unwrap_aead(self, wrapped: bytes) -> HostAeadKey:
        return HostAeadKey(self._keys, self._unwrap(wrapped))

    def unwrap_mac(self, wrapped: bytes) -> HostMacKey:
        return HostMacKey(self._keys, self._unwrap(wrapped))

    def _unwrap(self, wrapped: bytes) -> Secret:
        if len(wrapped) != 40:
            raise NotAuthentic(t("a wrapped key has 40 bytes, not {count}", count=len(wrapped)))
        try:
            with self._keys.lock:
                return Secret(keywrap.aes_key_unwrap(self._secret.value, wrapped))
        except keywrap.InvalidUnwrap as exc:
            raise NotAuthentic("not authentic: the host refused it while unwrapping a key") from exc
