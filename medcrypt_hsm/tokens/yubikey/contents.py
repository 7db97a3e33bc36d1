"""``Contents``: what of ours is on a YubiKey, by name: keys in slots, small objects, and the directory of both.

In: an open PIV session and names. Out: entries and what their slots hold; keys made, and destroyed with proof. The
order of writes in ``make`` and ``destroy_key`` is what a kill between two of them relies on. Callers hold the card's
lock and translate foreign errors, but for ``key``. Not here: what a key is used for (token.py), the directory's bytes
(directory.py), single commands to the card (slots.py, storage.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from yubikit.piv import PivSession

from medcrypt_hsm.errors import TokenError, TokenUnfit
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens import TokenInfo, Touch
from medcrypt_hsm.tokens.yubikey import slots, storage
from medcrypt_hsm.tokens.yubikey.connection import Card, card_errors
from medcrypt_hsm.tokens.yubikey.directory import NOTHING, Directory, Entry, Kind, State
from medcrypt_hsm.tokens.yubikey.login import authorize
from medcrypt_hsm.tokens.yubikey.slots import SlotKey, fingerprint_of

_DESTROY_HINT = "do not count on it being gone"


class Contents:
    """The names on one card. Nobody else writes while we have it, so what was read once is known."""

    def __init__(self, card: Card, session: PivSession, info: TokenInfo, touch: Touch) -> None:
        self._card = card
        self._session = session
        self._info = info
        self._touch = touch
        self._loaded: Directory | None = None
        self._keys: dict[int, SlotKey | None] = {}  # by slot
        self._authorized = False

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

    def names(self) -> Sequence[str]:
        return sorted({entry.name for entry in self._directory.entries if self._is_there(entry)})

    def key(self, name: str, kind: Kind | None = None) -> tuple[Entry, SlotKey]:
        """The key of that name, and where it is. Raises KeyError, and TokenError for one of another kind."""
        with card_errors(self._card, t("looking for a key")):
            entry = self._directory.key(name)
            key = None if entry is None else self._in_slot(entry.place)
        if entry is None:
            raise KeyError(name)
        if kind is not None and entry.kind is not kind:  # the firmware would use it for either
            raise TokenError(
                t("{key!r} on {label} is not for that", key=name, label=self._info.label),
                "use the key that was made for it",
            )
        if key is not None and entry.holds(key.fingerprint):
            return entry, key
        if key is not None and entry.state is State.ACTIVE:
            words = t(
                "another program put a key of its own where {key!r} was, into slot {slot:02X} of {token}",
                key=name,
                slot=entry.place,
                token=self._info.label,
            )
            raise TokenError(words, "use a backup")
        raise KeyError(name)

    def signing_slot(self, name: str, fingerprint: bytes) -> int | None:
        """Where the directory has that signing key, while nobody has looked into the slot: its signature will tell."""
        with card_errors(self._card, t("looking for a key")):
            entry = self._directory.key(name)
        if entry is None or entry.place in self._keys or entry.kind is not Kind.SIGNING_KEY:
            return None
        known = entry.state is State.ACTIVE and entry.fingerprint == fingerprint
        return entry.place if known else None

    def is_free(self, slot: int) -> bool:
        entry = self._directory.slot(slot)
        if entry is not None:
            return entry.may_be_overwritten(self._now(slot))
        return not slots.occupied(self._session, slot)

    def _free_slot(self) -> int:
        for slot in slots.RETIRED:
            if self.is_free(slot):
                return slot
        raise TokenUnfit(
            t("none of the {slots} retired slots of {label} is free", slots=len(slots.RETIRED), label=self._info.label),
            "move keys of other programs off it, or use another token",
        )

    def _free_pair(self) -> int:
        entries = [entry for entry in self._directory.entries if entry.kind is Kind.OBJECT]
        taken = {entry.place for entry in entries}
        if len(taken) == storage.PAIRS:  # some may have an entry and no object: their writing or removal was cut off
            taken = {entry.place for entry in entries if self._is_there(entry)}
        for index in range(storage.PAIRS):
            if index not in taken:
                return index
        raise TokenUnfit(
            t("{label} keeps {most} objects already", label=self._info.label, most=storage.PAIRS), "use another token"
        )

    # Small objects

    def put(self, name: str, value: bytes) -> None:
        self._authorize()
        entry = self._directory.object(name)
        if entry is None:
            entry = Entry(name, Kind.OBJECT, self._free_pair())
            self._store(self._directory.with_entry(entry))
        storage.put(self._session, entry.place, value)

    def read(self, name: str) -> Sequence[bytes]:
        entry = self._directory.object(name)
        return () if entry is None else tuple(value for _, value in storage.values(self._session, entry.place))

    # Making and destroying

    def _authorize(self) -> None:
        if not self._authorized:
            authorize(self._card, self._session, self._info, self._touch)
            self._authorized = True

    def _store(self, directory: Directory) -> None:
        self._loaded = None  # whatever is on the card if this fails
        self._loaded = storage.store(self._session, directory)

    def make(self, name: str, kind: Kind, touch: str) -> SlotKey:
        """Entry, key, certificate, entry: in this order, so that nothing of ours is ever unknown to the directory."""
        before = self._directory.key(name)
        if before is not None and before.holds(self._now(before.place)):
            raise TokenError(
                t("{label} has a key {key!r} already", label=self._info.label, key=name),
                "destroy that key or use another token",
            )
        if not slots.tells_public_keys(self._session):
            words = t(
                "{label} has lost its attestation certificate, and nothing else tells its public keys",
                label=self._info.label,
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
        wrong = [t("it cannot be found")] if key is None else [*problems(kind, key)]
        if key is not None and key.touch != touch:
            wrong.append(t("its touch policy is {policy!r}", policy=key.touch))
        if key is None or wrong:
            self.destroy_key(entry)
            raise TokenUnfit(
                t(
                    "{label} made {key!r} otherwise than asked: {problems}",
                    label=self._info.label,
                    key=name,
                    problems=joined("; ", wrong),
                )
            )
        slots.put_certificate(self._session, slot, name, key.public_key)
        self._store(self._directory.with_entry(replace(entry, state=State.ACTIVE, fingerprint=key.fingerprint)))
        return key

    def destroy(self, name: str) -> None:
        """The key of that name, and the small object."""
        if (entry := self._directory.key(name)) is not None:
            self.destroy_key(entry)
        if (entry := self._directory.object(name)) is not None:
            self._authorize()
            storage.clear(self._session, entry.place)
            if storage.values(self._session, entry.place):
                raise TokenError(
                    t("{label} still shows {object!r} after destroying it", label=self._info.label, object=name),
                    _DESTROY_HINT,
                )
            self._store(self._directory.without(entry))

    def destroy_key(self, entry: Entry) -> None:
        """Mark the entry DOOMED, destroy the key, prove that it is gone; then remove its certificate and the entry."""
        key = self._in_slot(entry.place)
        self._authorize()
        if key is not None and entry.holds(key.fingerprint):
            entry = replace(entry, state=State.DOOMED, fingerprint=key.fingerprint)
            self._store(self._directory.with_entry(entry))
            self._keys.pop(entry.place, None)
            self._keys[entry.place] = after = slots.destroy(self._session, entry.place)
            gone = fingerprint_of(after) != key.fingerprint
            if not gone or slots.still_works(self._session, entry.place, key.public_key):
                raise TokenError(
                    t("{label} still uses {key!r} after destroying it", label=self._info.label, key=entry.name),
                    _DESTROY_HINT,
                )
        self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """Remove the certificate and the name of an entry whose key was never made, or is gone."""
        now = self._now(entry.place)
        if entry.state is State.ACTIVE and now != NOTHING:  # another program's key: nothing there is ours any more
            self._store(self._directory.without(entry))
            return
        slots.delete_certificate(self._session, entry.place, entry.name)
        if now == NOTHING:
            self._store(self._directory.without(entry))
        else:  # the key that took the place of the destroyed one
            self._store(self._directory.with_entry(Entry("", entry.kind, entry.place, State.SPENT, now)))


def problems(kind: Kind, key: SlotKey) -> Iterator[str]:
    """What is wrong with a key of that kind, in words."""
    if not key.p256:
        yield "it is no P-256 key"
    if not key.generated:
        yield "it was not made on the device"
    if not key.pin_once:
        yield "its PIN policy is not 'once'"
    if kind is Kind.SIGNING_KEY and key.touch != "never":
        yield "it waits for a finger at every use"
