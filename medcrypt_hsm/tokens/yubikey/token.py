"""``YubikeyToken``: the ``Token`` protocol over the PIV application of a YubiKey. Profile ``p256-hpke``.

In: a card, logged in. Out: what the protocol promises, by names. Every method holds the card's lock. Not here: which
slot or object a name stands for, and how keys are made and destroyed (contents.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from yubikit.core import InvalidPinError
from yubikit.core.smartcard import ApduError
from yubikit.piv import PivSession

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.p256 import fingerprint, verify_signature
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import LastTry, NotAuthentic, TokenUnfit, WrongPin
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, TOUCH_POLICIES, Evidence, PinPrompt, TokenInfo, Touch
from medcrypt_hsm.tokens.yubikey import slots
from medcrypt_hsm.tokens.yubikey.connection import Card, card_errors
from medcrypt_hsm.tokens.yubikey.contents import Contents, problems
from medcrypt_hsm.tokens.yubikey.directory import Kind
from medcrypt_hsm.tokens.yubikey.discovery import find, forget_open, refuse_open, remember_open
from medcrypt_hsm.tokens.yubikey.login import LONGEST, SHORTEST, log_in, wrong_pin
from medcrypt_hsm.tokens.yubikey.slots import SlotKey

PREFIX = "medcrypt "
TRIAL = "medcrypt trial "
LONGEST_NAME = 64  # of a certificate's common name (RFC 5280, ub-common-name)
NEEDED = 2  # slots for a vault: its KEK and its audit key


def open_yubikey(serial: int, prompt: PinPrompt, *, last_try: bool, touch: Touch) -> YubikeyToken:
    """Look at it, ask for its PIN, log in."""
    refuse_open(serial)
    card, session, info = log_in(find(serial), prompt, last_try=last_try)
    return YubikeyToken(card, session, info, touch)


class YubikeyToken:
    """An open YubiKey. See the ``Token`` protocol for what each method promises."""

    def __init__(self, card: Card, session: PivSession, info: TokenInfo, touch: Touch) -> None:
        self.info = info
        self._card = card
        self._session = session
        self._touch = touch
        self._host = HostKeys()
        self._contents = Contents(card, session, info, touch)
        remember_open(card, info)

    def __repr__(self) -> str:
        return f"YubikeyToken({self.info.uri})"

    def __enter__(self) -> YubikeyToken:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Wipe what is in host memory, reset the card and let it go; a second close does nothing."""
        self._host.wipe()
        if not self._card.closed:
            forget_open(self._card, self.info)
            self._card.close()

    def refuse_gone(self) -> None:
        with card_errors(self._card, t("looking at it")):
            pass

    def check_pin(self, pin: str) -> None:
        """Is this its PIN? A wrong one costs a try, as at the login; the last is never spent. Raises PinError."""
        if not SHORTEST <= len(pin.encode()) <= LONGEST:
            raise WrongPin(t("that cannot be the PIN of {token}", token=self.info.label), "it was not sent")
        with card_errors(self._card, t("looking at its PIN")):
            if self._session.get_pin_attempts() < 2:
                raise LastTry(t("{token} has one try of its PIN left", token=self.info.label))
            try:
                self._session.verify_pin(pin)
            except InvalidPinError as exc:
                raise wrong_pin(self.info, exc.attempts_remaining) from exc

    @contextmanager
    def trial(self) -> Iterator[YubikeyToken]:
        """This token, for keys named ``medcrypt trial …``: PIV has no keys that end by themselves.

        They are destroyed at the end; those that an interrupted trial left are destroyed at the beginning.
        """
        self._destroy_trials()
        try:
            yield self
        finally:
            self._destroy_trials()

    def _destroy_trials(self) -> None:
        for name in self.names():
            if name.startswith(TRIAL):
                self.destroy(name)

    # What it can do

    def profiles(self) -> Sequence[str]:
        return () if self.missing(P256_HPKE) else (P256_HPKE,)

    def missing(self, profile: str) -> Sequence[str]:
        _check_profile(profile)
        if profile != P256_HPKE:
            return ("AES key wrap: the PIV application has public-key algorithms alone",)
        free = 0
        with card_errors(self._card, t("looking for free slots")):
            for slot in slots.RETIRED:
                free += self._contents.is_free(slot)
                if free == NEEDED:
                    return ()
        return (
            t(
                "free slots: {free} of its {slots} retired ones is free, and a vault needs {needed}",
                free=free,
                slots=len(slots.RETIRED),
                needed=NEEDED,
            ),
        )

    # The KEK

    def make_kek(self, name: str, profile: str, *, touch: str = "never") -> None:
        if touch not in TOUCH_POLICIES:
            raise ValueError(f"touch is one of {', '.join(TOUCH_POLICIES)}")
        _check_profile(profile)
        if profile != P256_HPKE:
            raise TokenUnfit(
                t("{token} makes no {profile!r} keys: it has no AES key wrap", token=self.info.label, profile=profile),
                t("use {profile}", profile=P256_HPKE),
            )
        self._make(name, Kind.KEK, touch)

    def wrap_keyset(self, kek: str, keyset: KeysetSecret, info: bytes) -> bytes:
        """HPKE to the public key that the device itself shows for the slot: nobody can have exchanged it."""
        from medcrypt_hsm.tokens import p256_hpke

        _, key = self._contents.key(kek, Kind.KEK)
        return p256_hpke.wrap_keyset(key.public_key, keyset, info)

    def unwrap_keyset(self, kek: str, wrapped: bytes, info: bytes) -> KeysetHandles:
        return self._host.handles(self.unwrap_keyset_to_host(kek, wrapped, info))

    def unwrap_keyset_to_host(self, kek: str, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        from medcrypt_hsm.tokens import p256_hpke

        ecdh, public_key = self._ecdh(kek)
        return p256_hpke.unwrap_keyset(ecdh, public_key, wrapped, info)

    def wrap_key(self, kek: str, key: bytes, info: bytes) -> bytes:
        from medcrypt_hsm.tokens import p256_hpke

        _, slot_key = self._contents.key(kek, Kind.KEK)
        return p256_hpke.wrap_key(slot_key.public_key, key, info)

    def unwrap_key(self, kek: str, wrapped: bytes, info: bytes) -> Secret:
        from medcrypt_hsm.tokens import p256_hpke

        ecdh, public_key = self._ecdh(kek)
        return p256_hpke.unwrap_key(ecdh, public_key, wrapped, info)

    def _ecdh(self, kek: str) -> tuple[Callable[[bytes], Secret], bytes]:
        """The agreement with the KEK's slot, and its public key."""
        entry, key = self._contents.key(kek, Kind.KEK)

        def ecdh(point: bytes) -> Secret:
            with self._asking(key, "unwrapping with a KEK"):
                return Secret(slots.agree(self._session, entry.place, point))

        return ecdh, key.public_key

    def _make(self, name: str, kind: Kind, touch: str) -> SlotKey:
        _check_name(name)
        if len(name) > LONGEST_NAME:
            raise ValueError(f"a key's name has at most {LONGEST_NAME} characters")
        with card_errors(self._card, t("making a key")):
            return self._contents.make(name, kind, touch)

    # The signing key

    def make_signing_key(self, name: str) -> bytes:
        return self._make(name, Kind.SIGNING_KEY, "never").public_key

    def public_key(self, name: str) -> bytes:
        return self._contents.key(name)[1].public_key

    def sign(self, name: str, data: bytes, *, public: bytes | None = None) -> bytes:
        """Where ``public`` verifies the signature, the slot need not be looked at first: 3 commands on firmware 4.3."""
        if public is not None and (slot := self._contents.signing_slot(name, fingerprint(public))) is not None:
            with card_errors(self._card, t("signing")), suppress(ApduError, NotAuthentic):
                signature = slots.sign(self._session, slot, data)
                verify_signature(public, signature, data)
                return signature
        entry, key = self._contents.key(name, Kind.SIGNING_KEY)
        with self._asking(key, "signing"):
            return slots.sign(self._session, entry.place, data)

    # Small objects

    def put_object(self, name: str, value: bytes) -> None:
        _check_name(name)
        with card_errors(self._card, t("writing an object")):
            self._contents.put(name, value)

    def read_objects(self, name: str) -> Sequence[bytes]:
        with card_errors(self._card, t("reading an object")):
            return self._contents.read(name)

    # All of them

    def names(self) -> Sequence[str]:
        with card_errors(self._card, t("listing what is on it")):
            return self._contents.names()

    def destroy(self, name: str) -> None:
        _check_name(name)
        with card_errors(self._card, t("destroying a key")):
            self._contents.destroy(name)

    def evidence(self, name: str) -> Evidence:
        entry, key = self._contents.key(name)
        claims = {
            "kek": entry.kind is Kind.KEK,
            "p256": key.p256,
            "generated_on_device": key.generated,
            "pin_policy_once": key.pin_once,
            "touch_never": key.touch == "never",
        }
        return Evidence(name, claims, tuple(problems(entry.kind, key)))

    def attestation(self, name: str) -> Sequence[bytes]:
        entry, _ = self._contents.key(name)
        with card_errors(self._card, t("attesting a key")):
            own = slots.attestation(self._session, entry.place)
            attesting = slots.attesting_certificate(self._session)
        return () if own is None or attesting is None else (own, attesting)

    # Using

    @contextmanager
    def _asking(self, key: SlotKey, doing: str) -> Iterator[None]:
        """Around the use of a private key: the ``touch`` callback is told if it waits for a finger."""
        finger = key.touch != "never"
        with card_errors(self._card, doing, touch=finger), self._touch(self.info) if finger else nullcontext():
            yield


def _check_profile(profile: str) -> None:
    if profile not in (AES_KW, P256_HPKE):
        raise ValueError(f"{profile!r} is no profile")


def _check_name(name: str) -> None:
    if not name.startswith(PREFIX) or len(name.encode()) > 255:
        raise ValueError(f"names on a token begin with {PREFIX!r} and have at most 255 bytes")
