"""The narrow waist: what every token can do and what the program needs of it.

In: an open ``Token`` (access.py opens one). Out: key handles that work without showing the key. Objects on a token have
a *name* (``medcrypt kek <vault id> <generation>``); each backend decides how it keeps names (a label, a certificate
subject, a directory object). Not here: any brand, any vault, any file.

    access.py          a token found and opened by its URI   pkcs11/, yubikey/  the two backends
    names.py           what keys and objects are called      attestation/       was a key made on the token?
    uri.py             ``pkcs11:`` URIs
    check.py           a profile, proven with operations     provision.py       a token made ready, its PIN changed
    p256_hpke.py       profile p256-hpke, the host's part
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.secret import Secret


AES_KW, P256_HPKE = "aes-kw", "p256-hpke"
TOUCH_POLICIES = ("never", "cached", "always")


class TokenInfo(NamedTuple):
    """What a token says about itself before anybody logs in. Serials of PKCS#11 tokens are only claims."""

    uri: str
    label: str
    serial: str
    model: str
    manufacturer: str
    initialized: bool
    user_pin_set: bool
    # Of "count-low", "final-try", "locked", "factory", and the same after "so-"; and "management-factory".
    pin_flags: frozenset[str]
    problem: str = ""  # why a module in the list could not be read, or a token not be looked at
    firmware: str = ""
    pin_tries: int | None = None  # left before the PIN locks, where the token tells
    unblocked_by: str = "so-pin"  # what sets a locked PIN anew: "so-pin" or "puk"
    name: str = ""  # its short name, where it is asked for as a token of a vault; that file is not verified yet


PinPrompt = Callable[[TokenInfo], str]
"""Asked for the PIN once per open, after the token has been found and its flags looked at."""
Touch = Callable[[TokenInfo], AbstractContextManager[object]]
"""Entered around each operation that may wait for a finger on the token, left when the token has answered."""


def no_touch(info: TokenInfo) -> AbstractContextManager[object]:
    """Nobody is told that the token waits."""
    return nullcontext()


class Evidence(NamedTuple):
    """What a token claims of one key: PKCS#11 attribute names in lower case, or the like, with their values."""

    name: str
    claims: Mapping[str, bool]
    problems: Sequence[str]  # in words; empty when the key is what it should be


class Token(Protocol):
    """An open token with its user logged in. Use as a context manager; leaving logs out.

    Every method may raise TokenRemoved, TokenUnfit or TokenError. A name that is not there: KeyError. Nothing here is
    retried, and no PIN is asked for twice.
    """

    info: TokenInfo

    def profiles(self) -> Sequence[str]:
        """The KEK profiles that its mechanisms promise, best first. Only ``check_token`` proves one."""
        ...

    def missing(self, profile: str) -> Sequence[str]:
        """In words, what it lacks for ``profile``."""
        ...

    def make_kek(self, name: str, profile: str, *, touch: str = "never") -> None:
        """Generate a KEK on the token: never leaves, wraps and unwraps (or agrees on a secret) only.

        ``touch``: one of TOUCH_POLICIES; other than "never" raises TokenUnfit where the token knows no touch.
        """
        ...

    def wrap_keyset(self, kek: str, keyset: KeysetSecret, info: bytes) -> bytes:
        """Wrap the three keys under the KEK called ``kek``. ``info`` is a ctx; profiles with AAD bind it."""
        ...

    def unwrap_keyset(self, kek: str, wrapped: bytes, info: bytes) -> KeysetHandles:
        """The token's one unwrap of a command. Raises NotAuthentic."""
        ...

    def unwrap_keyset_to_host(self, kek: str, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        """The three keys themselves, in locked host memory: to wrap them for another token, or to re-key the vault.

        The caller wipes them. Raises NotAuthentic.
        """
        ...

    def wrap_key(self, kek: str, key: bytes, info: bytes) -> bytes:
        """Wrap one 32-byte key under the KEK called ``kek``, as ``wrap_keyset`` does three."""
        ...

    def unwrap_key(self, kek: str, wrapped: bytes, info: bytes) -> Secret:
        """That key, in locked host memory; the caller wipes it. Raises NotAuthentic."""
        ...

    def make_signing_key(self, name: str) -> bytes:
        """Generate a P-256 signing key on the token; its public key as DER SubjectPublicKeyInfo (RFC 5480)."""
        ...

    def public_key(self, name: str) -> bytes:
        """Of a signing key, or of a ``p256-hpke`` KEK: DER SubjectPublicKeyInfo."""
        ...

    def sign(self, name: str, data: bytes, *, public: bytes | None = None) -> bytes:
        """ECDSA over SHA-256 of ``data`` (FIPS 186-5): 64 bytes, r || s.

        ``public``: the key under which the caller is going to verify it; a token may then spare asking which key it is.
        """
        ...

    def put_object(self, name: str, value: bytes) -> None:
        """Keep a small private object: the new one is made first, then older ones of that name are destroyed."""
        ...

    def read_objects(self, name: str) -> Sequence[bytes]:
        """Every object of that name: more than one after an interrupted ``put_object``, none if there is none."""
        ...

    def names(self) -> Sequence[str]:
        """The names of all keys and objects on the token that begin with ``medcrypt ``, each once, sorted."""
        ...

    def destroy(self, name: str) -> None:
        """Destroy every key and object of that name and prove that they are gone. None there: nothing to do."""
        ...

    def evidence(self, name: str) -> Evidence:
        """What the token claims of the key called ``name`` (KEK or signing key), and what is wrong with it."""
        ...

    def attestation(self, name: str) -> Sequence[bytes]:
        """DER certificates in which the device says that it made this key, the key's own first; none if it cannot."""
        ...

    def refuse_gone(self) -> None:
        """Quick, and without asking it to do anything: is it still there? Raises TokenRemoved or TokenError."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Token: ...
    def __exit__(self, *exc: object) -> None: ...


_reader_holders: list[Callable[[], None]] = []


def may_hold_readers(let_go: Callable[[], None]) -> None:
    """A backend says how it lets go of smart card readers that it holds and does not use at the moment.

    A PKCS#11 module that knows smart cards takes every reader for itself as long as it is initialised; and the backends
    do not know each other.
    """
    _reader_holders.append(let_go)


def let_go_of_readers() -> bool:
    """Whatever this process itself may hold of them; False where it holds none."""
    for let_go in _reader_holders:
        let_go()
    return bool(_reader_holders)
