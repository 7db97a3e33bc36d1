"""``Pkcs11Token``: the ``Token`` protocol over one logged-in PKCS#11 session (docs/spec/tokens.md).

Names are CKA_LABEL (objects.py finds by them). A KEK is an AES-256 secret key (aes_kw.py) or a P-256 pair
(p256_hpke.py): the kind of key tells which profile it serves. A signing key is a P-256 pair, a small object a private
CKO_DATA.

``trial()`` is the same token with nothing stored: what check.py uses to prove a profile without a trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pkcs11 import Attribute, Mechanism, ObjectClass, PrivateKey, PublicKey, Session

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret
from medcrypt_hsm.crypto.p256 import P256_SPKI
from medcrypt_hsm.errors import TokenError, TokenRemoved, TokenUnfit
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, TOUCH_POLICIES, Evidence, PinPrompt
from medcrypt_hsm.tokens.pkcs11 import aes_kw
from medcrypt_hsm.tokens.pkcs11.errors import token_errors
from medcrypt_hsm.tokens.pkcs11.keys import SIGNING, generate_pair, wrap_key
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken, find
from medcrypt_hsm.tokens.pkcs11.objects import PRIVATE, PUBLIC, SECRET, Objects
from medcrypt_hsm.tokens.uri import TokenUri

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.hostkeys import HostKeys
    from medcrypt_hsm.crypto.secret import Secret

_PROFILES = (AES_KW, P256_HPKE)  # best first


def _needed(profile: str) -> dict[Mechanism, str]:
    """The mechanisms of a profile, in words."""
    from medcrypt_hsm.tokens.pkcs11 import p256_hpke

    needed = aes_kw.NEEDED if _known(profile) == AES_KW else p256_hpke.NEEDED
    return needed | {
        Mechanism.EC_KEY_PAIR_GEN: "generating P-256 key pairs (CKM_EC_KEY_PAIR_GEN)",
        Mechanism.ECDSA: "ECDSA signatures (CKM_ECDSA)",
    }


def open_pkcs11(
    uri: TokenUri, prompt: PinPrompt, *, last_try: bool = False, modules: Sequence[str] = ()
) -> Pkcs11Token:
    """Find the token, ask for its PIN, log in."""
    place = find(uri, modules)
    session, _ = place.login(prompt, last_try=last_try)
    return Pkcs11Token(place, session)


class Pkcs11Token:
    """An open PKCS#11 token. See the ``Token`` protocol for what each method promises.

    Long because the protocol has two dozen methods, and each of them is here.
    """

    def __init__(self, place: SlotToken, session: Session, *, stored: bool = True) -> None:
        self.info = place.info
        self._place = place
        self._session = session
        self._stored = stored
        self._objects = Objects(place, session, stored=stored)
        self._host: HostKeys | None = None  # made with the first keyset of a p256-hpke KEK

    def __repr__(self) -> str:
        return f"Pkcs11Token({self.info.uri})"

    def __enter__(self) -> Pkcs11Token:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Log out. Session keys die with the session, host keys are wiped; a second close does nothing."""
        self._objects.forget()
        if self._host is not None:
            self._host.wipe()
        if self._stored and not self._place.closed:
            self._place.logout(self._session)

    def refuse_gone(self) -> None:
        if not self._place.present():
            raise TokenRemoved(t("{token} was removed", token=self._place.title))

    def trial(self) -> Pkcs11Token:
        """This token for throw-away objects: what it makes lives in the session alone, and nothing else is seen."""
        return Pkcs11Token(self._place, self._session, stored=False)

    # What it can do

    def profiles(self) -> Sequence[str]:
        return tuple(profile for profile in _PROFILES if not self.missing(profile))

    def missing(self, profile: str) -> Sequence[str]:
        needed = _needed(profile)
        with token_errors(self._place, t("listing its mechanisms")):
            offered = self._place.token.slot.get_mechanisms()
        return tuple(words for mechanism, words in needed.items() if mechanism not in offered)

    # The KEK

    def make_kek(self, name: str, profile: str, *, touch: str = "never") -> None:
        _known(profile)
        if touch not in TOUCH_POLICIES:
            raise ValueError(f"{touch!r} is no touch policy")
        if touch != "never":
            raise TokenUnfit(
                t("{token} cannot wait for a touch", token=self._place.title), "leave '--touch' out for this token"
            )
        self._objects.refuse_taken(name)
        with token_errors(self._place, t("making a KEK")):
            if profile == AES_KW:
                self._objects.keep(name, SECRET, aes_kw.make_kek(self._session, name, stored=self._stored))
            else:
                from medcrypt_hsm.tokens.pkcs11 import p256_hpke

                self._keep_pair(name, p256_hpke.make_kek(self._session, name, stored=self._stored))
        self._refuse_unfit(name, profile)
        if profile == P256_HPKE:
            try:
                self.public_key(name)  # this also proves that it agrees on secrets and lets the host have them
            except TokenUnfit:
                self.destroy(name)
                raise

    def wrap_keyset(self, kek: str, keyset: KeysetSecret, info: bytes) -> bytes:
        """120 bytes under an AES KEK, which have no room for ``info``; 177 under a pair (docs/spec/tokens.md)."""
        kind, key = self._kek(kek)
        if kind is PRIVATE:
            from medcrypt_hsm.tokens.p256_hpke import wrap_keyset

            return wrap_keyset(self.public_key(kek), keyset, info)
        with self._objects.using(kek, SECRET, "wrapping a vault keyset"):
            return aes_kw.wrap_keyset(self._place, self._session, key, keyset)

    def unwrap_keyset(self, kek: str, wrapped: bytes, info: bytes) -> KeysetHandles:
        kind, key = self._kek(kek)
        if kind is SECRET:
            with self._objects.using(kek, SECRET, "unwrapping the vault keyset"):
                return aes_kw.unwrap_keyset(self._place, self._session, key, wrapped)
        from medcrypt_hsm.crypto.hostkeys import HostKeys

        if self._host is None:
            self._host = HostKeys()
        return self._host.handles(self._agreed_keyset(kek, key, wrapped, info))

    def unwrap_keyset_to_host(self, kek: str, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        kind, key = self._kek(kek)
        if kind is PRIVATE:
            return self._agreed_keyset(kek, key, wrapped, info)
        with self._objects.using(kek, SECRET, "unwrapping the vault keyset"):
            return aes_kw.unwrap_to_host(self._place, self._session, key, wrapped)

    def wrap_key(self, kek: str, key: bytes, info: bytes) -> bytes:
        """40 bytes under an AES KEK, which have no room for ``info``; 113 under a pair."""
        kind, handle = self._kek(kek)
        if kind is PRIVATE:
            from medcrypt_hsm.tokens.p256_hpke import wrap_key as seal_key

            return seal_key(self.public_key(kek), key, info)
        with self._objects.using(kek, SECRET, "wrapping a key"):
            return wrap_key(self._place, self._session, handle, key)

    def unwrap_key(self, kek: str, wrapped: bytes, info: bytes) -> Secret:
        kind, handle = self._kek(kek)
        if kind is PRIVATE:
            from medcrypt_hsm.tokens.p256_hpke import unwrap_key

            return unwrap_key(self._ecdh(kek, handle), P256_SPKI + self._point(kek), wrapped, info)
        with self._objects.using(kek, SECRET, "unwrapping a key"):
            return aes_kw.unwrap_key_to_host(self._place, self._session, handle, wrapped)

    def _agreed_keyset(self, kek: str, private: Any, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        from medcrypt_hsm.tokens.p256_hpke import unwrap_keyset

        return unwrap_keyset(self._ecdh(kek, private), P256_SPKI + self._point(kek), wrapped, info)

    def _ecdh(self, kek: str, private: Any) -> Callable[[bytes], Secret]:
        from medcrypt_hsm.tokens.pkcs11 import p256_hpke

        def ecdh(point: bytes) -> Secret:
            with self._objects.using(kek, PRIVATE, "unwrapping with a KEK"):
                return p256_hpke.ecdh(self._place, self._session, private, point)

        return ecdh

    def _kek(self, name: str) -> tuple[ObjectClass, Any]:
        """The class of the KEK's key, which tells its profile, and its handle."""
        known = [(kind, key) for kind in (SECRET, PRIVATE) if (key := self._objects.kept(name, kind)) is not None]
        # Both kinds are looked for: whoever reaches a token can put a key of their own beside ours, without a PIN.
        found = known or [(kind, key) for kind in (SECRET, PRIVATE) for key in self._objects.find(name, kind)]
        if len(found) > 1:
            raise self._objects.duplicate(name)
        if not found:
            raise KeyError(name)
        kind, key = found[0]
        if not hasattr(key, "unwrap_key" if kind is SECRET else "derive_key"):
            raise TokenUnfit(
                t(
                    "the key {key!r} on {token} is no KEK: it neither unwraps nor derives",
                    key=name,
                    token=self._place.title,
                )
            )
        return kind, self._objects.keep(name, kind, key)

    def attestation(self, name: str) -> Sequence[bytes]:
        return ()

    # The signing key

    def make_signing_key(self, name: str) -> bytes:
        self._objects.refuse_taken(name)
        with token_errors(self._place, t("making a signing key")):
            self._keep_pair(name, generate_pair(self._session, name, SIGNING, stored=self._stored))
        self._refuse_unfit(name, None)
        return self.public_key(name)

    def _keep_pair(self, name: str, pair: tuple[PublicKey, PrivateKey]) -> None:
        for object_class, half in zip((PUBLIC, PRIVATE), pair, strict=True):
            self._objects.keep(name, object_class, half)

    def public_key(self, name: str) -> bytes:
        """Of a KEK it is proven first to be the private key's: the next thing that happens is sealing to it."""
        point, private = self._point(name), self._objects.key(name, PRIVATE)
        if hasattr(private, "derive_key"):
            from medcrypt_hsm.tokens.pkcs11 import p256_hpke

            with self._objects.using(name, PRIVATE, "proving a public key"):
                p256_hpke.prove_public(self._place, self._session, private, point)
        return P256_SPKI + point

    def _point(self, name: str) -> bytes:
        from medcrypt_hsm.tokens.pkcs11 import p256

        key = self._objects.key(name, PUBLIC)
        with self._objects.using(name, PUBLIC, "reading a public key"):
            parameters, point = key[Attribute.EC_PARAMS], key[Attribute.EC_POINT]
        if (found := p256.point(parameters, point)) is None:
            raise TokenUnfit(
                t("the public key {key!r} on {token} is not a P-256 key", key=name, token=self._place.title)
            )
        return found

    def sign(self, name: str, data: bytes, *, public: bytes | None = None) -> bytes:
        key = self._objects.key(name, PRIVATE)
        if not hasattr(key, "sign"):
            raise TokenUnfit(t("the key {key!r} on {token} is no signing key", key=name, token=self._place.title))
        with self._objects.using(name, PRIVATE, "signing"):
            signature: bytes = key.sign(hashlib.sha256(data).digest(), mechanism=Mechanism.ECDSA)
        if len(signature) != 64:
            raise TokenError(
                t(
                    "{token} gave a signature of {count} bytes instead of 64",
                    token=self._place.title,
                    count=len(signature),
                )
            )
        return signature

    # Small objects, and all of them

    def put_object(self, name: str, value: bytes) -> None:
        self._objects.put(name, value)

    def read_objects(self, name: str) -> Sequence[bytes]:
        return self._objects.read(name)

    def names(self) -> Sequence[str]:
        return self._objects.names()

    def destroy(self, name: str) -> None:
        self._objects.destroy(name)

    def evidence(self, name: str) -> Evidence:
        return self._judged(name, None)

    def _judged(self, name: str, should: Mapping[str, tuple[bool, str]] | None) -> Evidence:
        """``should``: what it was made to be; None: what its class and its uses say that it is."""
        from medcrypt_hsm.tokens.pkcs11.evidence import (
            CLAIMS,
            KEK_PAIR_SHOULD,
            KEK_SHOULD,
            SIGNING_KEY_SHOULD,
            problems,
        )

        secret, private = self._objects.find(name, SECRET), self._objects.find(name, PRIVATE)
        if len(secret) + len(private) > 1:
            raise self._objects.duplicate(name)
        if not secret and not private:
            raise KeyError(name)
        with token_errors(self._place, t("reading a key's attributes")):
            read = (secret or private)[0].get_attributes(CLAIMS)
        claims = {attribute.name.lower(): bool(read[attribute]) for attribute in CLAIMS if attribute in read}
        if should is None:
            agrees = claims.get("derive", False) and not claims.get("sign", False)
            should = KEK_SHOULD if secret else KEK_PAIR_SHOULD if agrees else SIGNING_KEY_SHOULD
        found = list(problems(claims, should))
        if private and not self._objects.find(name, PUBLIC):
            found.append("its public key is not on the token")
        return Evidence(name, claims, tuple(found))

    def _refuse_unfit(self, name: str, profile: str | None) -> None:
        """``profile``: of the KEK that it was made to be; None: it is a signing key."""
        from medcrypt_hsm.tokens.pkcs11.evidence import SHOULD

        found = self._judged(name, SHOULD[profile]).problems
        if found:
            self.destroy(name)
            raise TokenUnfit(
                t(
                    "{token} made {key!r} otherwise than asked: {problems}",
                    token=self._place.title,
                    key=name,
                    problems=joined("; ", found),
                )
            )


def _known(profile: str) -> str:
    if profile not in _PROFILES:
        raise ValueError(f"{profile!r} is no profile of a PKCS#11 token")
    return profile
