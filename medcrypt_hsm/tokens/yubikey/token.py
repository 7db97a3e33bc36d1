"""``YubikeyToken``: the ``Token`` protocol over the PIV application of a YubiKey. Profile ``p256-hpke``.

What a name stands for is in the directory (directory.py). Every method holds the card's lock; the order of writes in
``_make`` and ``_destroy_key`` is what a kill between two of them relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from yubikit.piv import PivSession

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import TokenError, TokenUnfit
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, TOUCH_POLICIES, Evidence, PinPrompt, TokenInfo, Touch
from medcrypt_hsm.tokens.yubikey import slots, storage
from medcrypt_hsm.tokens.yubikey.connection import Card, card_errors
from medcrypt_hsm.tokens.yubikey.directory import NOTHING, Directory, Entry, Kind, State
from medcrypt_hsm.tokens.yubikey.discovery import find, forget_open, refuse_open, remember_open
from medcrypt_hsm.tokens.yubikey.login import authorize, log_in
from medcrypt_hsm.tokens.yubikey.slots import SlotKey, fingerprint_of

PREFIX = "medcrypt "
TRIAL = "medcrypt trial "
LONGEST_NAME = 64  # of a certificate's common name (RFC 5280, ub-common-name)
NEEDED = 2  # slots for a vault: its KEK and its audit key
_DESTROY_HINT = "do not count on it being gone"


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
        self._loaded: Directory | None = None
        self._keys: dict[int, SlotKey | None] = {}  # by slot; nobody else writes while we have the card
        self._authorized = False
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
        with card_errors(self._card, "looking at it"):
            pass

    @contextmanager
    def trial(self) -> Iterator[YubikeyToken]:
        """This token, for keys named ``medcrypt trial …``: PIV has none that end by themselves.

        They are destroyed at the end, and at the beginning those of a trial that was cut off.
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
        with card_errors(self._card, "looking for free slots"):
            for slot in slots.RETIRED:
                free += self._is_free(slot)
                if free == NEEDED:
                    return ()
        return (f"free slots: {free} of its {len(slots.RETIRED)} retired ones is free, and a vault needs {NEEDED}",)

    # The KEK

    def make_kek(self, name: str, profile: str, *, touch: str = "never") -> None:
        if touch not in TOUCH_POLICIES:
            raise ValueError(f"touch is one of {', '.join(TOUCH_POLICIES)}")
        _check_profile(profile)
        if profile != P256_HPKE:
            raise TokenUnfit(f"{self.info.label} makes no {profile!r} keys: it has no AES key wrap", f"use {P256_HPKE}")
        self._make(name, Kind.KEK, touch)

    def wrap_keyset(self, kek: str, keyset: KeysetSecret, info: bytes) -> bytes:
        """HPKE to the public key that the device itself shows for the slot: nobody can have exchanged it."""
        from medcrypt_hsm.tokens import p256_hpke

        _, key = self._key(kek, Kind.KEK)
        return p256_hpke.wrap_keyset(key.public_key, keyset, info)

    def unwrap_keyset(self, kek: str, wrapped: bytes, info: bytes) -> KeysetHandles:
        return self._host.handles(self.unwrap_keyset_to_host(kek, wrapped, info))

    def unwrap_keyset_to_host(self, kek: str, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        from medcrypt_hsm.tokens import p256_hpke

        ecdh, public_key = self._ecdh(kek)
        return p256_hpke.unwrap_keyset(ecdh, public_key, wrapped, info)

    def wrap_key(self, kek: str, key: bytes, info: bytes) -> bytes:
        from medcrypt_hsm.tokens import p256_hpke

        _, slot_key = self._key(kek, Kind.KEK)
        return p256_hpke.wrap_key(slot_key.public_key, key, info)

    def unwrap_key(self, kek: str, wrapped: bytes, info: bytes) -> Secret:
        from medcrypt_hsm.tokens import p256_hpke

        ecdh, public_key = self._ecdh(kek)
        return p256_hpke.unwrap_key(ecdh, public_key, wrapped, info)

    def _ecdh(self, kek: str) -> tuple[Callable[[bytes], Secret], bytes]:
        """The agreement with the KEK's slot, and its public key."""
        entry, key = self._key(kek, Kind.KEK)

        def ecdh(point: bytes) -> Secret:
            with self._asking(key, "unwrapping with a KEK"):
                return Secret(slots.agree(self._session, entry.place, point))

        return ecdh, key.public_key

    # The signing key

    def make_signing_key(self, name: str) -> bytes:
        return self._make(name, Kind.SIGNING_KEY, "never").public_key

    def public_key(self, name: str) -> bytes:
        return self._key(name)[1].public_key

    def sign(self, name: str, data: bytes) -> bytes:
        entry, key = self._key(name, Kind.SIGNING_KEY)
        with self._asking(key, "signing"):
            return slots.sign(self._session, entry.place, data)

    # Small objects

    def put_object(self, name: str, value: bytes) -> None:
        _check_name(name)
        with card_errors(self._card, "writing an object"):
            self._authorize()
            entry = self._directory.object(name)
            if entry is None:
                entry = Entry(name, Kind.OBJECT, self._free_pair())
                self._store(self._directory.with_entry(entry))
            storage.put(self._session, entry.place, value)

    def read_objects(self, name: str) -> Sequence[bytes]:
        with card_errors(self._card, "reading an object"):
            entry = self._directory.object(name)
            return () if entry is None else tuple(value for _, value in storage.values(self._session, entry.place))

    # All of them

    def names(self) -> Sequence[str]:
        with card_errors(self._card, "listing what is on it"):
            return sorted({entry.name for entry in self._directory.entries if self._is_there(entry)})

    def destroy(self, name: str) -> None:
        _check_name(name)
        with card_errors(self._card, "destroying a key"):
            if (entry := self._directory.key(name)) is not None:
                self._destroy_key(entry)
            if (entry := self._directory.object(name)) is not None:
                self._authorize()
                storage.clear(self._session, entry.place)
                if storage.values(self._session, entry.place):
                    raise TokenError(f"{self.info.label} still shows {name!r} after destroying it", _DESTROY_HINT)
                self._store(self._directory.without(entry))

    def evidence(self, name: str) -> Evidence:
        entry, key = self._key(name)
        claims = {
            "kek": entry.kind is Kind.KEK,
            "p256": key.p256,
            "generated_on_device": key.generated,
            "pin_policy_once": key.pin_once,
            "touch_never": key.touch == "never",
        }
        return Evidence(name, claims, tuple(_problems(entry.kind, key)))

    def attestation(self, name: str) -> Sequence[bytes]:
        entry, _ = self._key(name)
        with card_errors(self._card, "attesting a key"):
            own = slots.attestation(self._session, entry.place)
            attesting = slots.attesting_certificate(self._session)
        return () if own is None or attesting is None else (own, attesting)

    # Finding

    @property
    def _directory(self) -> Directory:
        if self._loaded is None:
            self._loaded = storage.load(self._session)
        return self._loaded

    def _in_slot(self, slot: int) -> SlotKey | None:
        if slot not in self._keys:
            self._keys[slot] = slots.read_key(self._session, slot)
        return self._keys[slot]

    def _now(self, slot: int) -> bytes:
        return fingerprint_of(self._in_slot(slot))

    def _is_there(self, entry: Entry) -> bool:
        if entry.kind is Kind.OBJECT:
            return bool(storage.values(self._session, entry.place))
        return entry.holds(self._now(entry.place))

    def _key(self, name: str, kind: Kind | None = None) -> tuple[Entry, SlotKey]:
        with card_errors(self._card, "looking for a key"):
            entry = self._directory.key(name)
            key = None if entry is None else self._in_slot(entry.place)
        if entry is None:
            raise KeyError(name)
        if kind is not None and entry.kind is not kind:  # the firmware would use it for either
            raise TokenError(f"{name!r} on {self.info.label} is not for that", "use the key that was made for it")
        if key is not None and entry.holds(key.fingerprint):
            return entry, key
        if key is not None and entry.state is State.ACTIVE:
            where = f"slot {entry.place:02X} of {self.info.label}"
            raise TokenError(f"another program put a key of its own where {name!r} was, into {where}", "use a backup")
        raise KeyError(name)

    def _is_free(self, slot: int) -> bool:
        entry = self._directory.slot(slot)
        if entry is not None:
            return entry.may_be_overwritten(self._now(slot))
        return not slots.occupied(self._session, slot)

    def _free_slot(self) -> int:
        for slot in slots.RETIRED:
            if self._is_free(slot):
                return slot
        raise TokenUnfit(
            f"none of the {len(slots.RETIRED)} retired slots of {self.info.label} is free",
            "move keys of other programs off it, or use another token",
        )

    def _free_pair(self) -> int:
        entries = [entry for entry in self._directory.entries if entry.kind is Kind.OBJECT]
        taken = {entry.place for entry in entries}
        if len(taken) == storage.PAIRS:  # those that were begun and never written, or whose end was cut off
            taken = {entry.place for entry in entries if self._is_there(entry)}
        for index in range(storage.PAIRS):
            if index not in taken:
                return index
        raise TokenUnfit(f"{self.info.label} keeps {storage.PAIRS} objects already", "use another token")

    @contextmanager
    def _asking(self, key: SlotKey, doing: str) -> Iterator[None]:
        """Round the use of a private key: whoever watches is told if it waits for a finger."""
        finger = key.touch != "never"
        with card_errors(self._card, doing, touch=finger), self._touch(self.info) if finger else nullcontext():
            yield

    # Making and destroying

    def _authorize(self) -> None:
        if not self._authorized:
            authorize(self._card, self._session, self.info, self._touch)
            self._authorized = True

    def _store(self, directory: Directory) -> None:
        self._loaded = None  # whatever is on the card if this fails
        self._loaded = storage.store(self._session, directory)

    def _make(self, name: str, kind: Kind, touch: str) -> SlotKey:
        """Entry, key, certificate, entry: in this order, so that nothing of ours is ever unknown to the directory."""
        _check_name(name)
        if len(name) > LONGEST_NAME:
            raise ValueError(f"a key's name has at most {LONGEST_NAME} characters")
        with card_errors(self._card, "making a key"):
            before = self._directory.key(name)
            if before is not None and before.holds(self._now(before.place)):
                raise TokenError(
                    f"{self.info.label} has a key {name!r} already", "destroy that key or use another token"
                )
            if not slots.tells_public_keys(self._session):
                words = (
                    f"{self.info.label} has lost its attestation certificate, and nothing else tells its public keys"
                )
                raise TokenUnfit(words, "use another token")
            self._authorize()
            if before is not None:
                self._settle(before)
            slot = self._free_slot()
            entry = Entry(name, kind, slot, State.PENDING, self._now(slot))
            self._store(self._directory.with_entry(entry))
            self._keys.pop(slot, None)
            slots.generate(self._session, slot, touch)
            key = self._in_slot(slot)
            problems = ["it cannot be found"] if key is None else [*_problems(kind, key)]
            if key is not None and key.touch != touch:
                problems.append(f"its touch policy is {key.touch!r}")
            if key is None or problems:
                self._destroy_key(entry)
                raise TokenUnfit(f"{self.info.label} made {name!r} otherwise than asked: {'; '.join(problems)}")
            slots.put_certificate(self._session, slot, name, key.public_key)
            self._store(self._directory.with_entry(replace(entry, state=State.ACTIVE, fingerprint=key.fingerprint)))
        return key

    def _destroy_key(self, entry: Entry) -> None:
        """Entry doomed, key gone, proven, then certificate and entry."""
        key = self._in_slot(entry.place)
        self._authorize()
        if key is not None and entry.holds(key.fingerprint):
            entry = replace(entry, state=State.DOOMED, fingerprint=key.fingerprint)
            self._store(self._directory.with_entry(entry))
            self._keys.pop(entry.place, None)
            self._keys[entry.place] = after = slots.destroy(self._session, entry.place)
            gone = fingerprint_of(after) != key.fingerprint
            if not gone or slots.still_works(self._session, entry.place, key.public_key):
                raise TokenError(f"{self.info.label} still uses {entry.name!r} after destroying it", _DESTROY_HINT)
        self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """The end of an entry whose key is not, or no longer, there: its certificate goes, and its name."""
        now = self._now(entry.place)
        if entry.state is State.ACTIVE and now != NOTHING:  # another program's key: nothing there is ours any more
            self._store(self._directory.without(entry))
            return
        slots.delete_certificate(self._session, entry.place, entry.name)
        if now == NOTHING:
            self._store(self._directory.without(entry))
        else:  # the key that took the place of the destroyed one
            self._store(self._directory.with_entry(Entry("", entry.kind, entry.place, State.SPENT, now)))


def _problems(kind: Kind, key: SlotKey) -> Iterator[str]:
    if not key.p256:
        yield "it is no P-256 key"
    if not key.generated:
        yield "it was not made on the device"
    if not key.pin_once:
        yield "its PIN policy is not 'once'"
    if kind is Kind.SIGNING_KEY and key.touch != "never":
        yield "it waits for a finger at every use"


def _check_profile(profile: str) -> None:
    if profile not in (AES_KW, P256_HPKE):
        raise ValueError(f"{profile!r} is no profile")


def _check_name(name: str) -> None:
    if not name.startswith(PREFIX) or len(name.encode()) > 255:
        raise ValueError(f"names on a token begin with {PREFIX!r} and have at most 255 bytes")
