"""``Signers``: whose audit keys count at a place in the log, as its entries introduced and retired them.

In: what an introduction says of a token, and what a re-key says of its root KEK. Out: the keys by token id, the names
by which entries call them, and what the log told of each token; or ValueError and its like for what cannot be. Not
here: the signatures themselves (chain.py), and when a re-key may be (chain_rekeys.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any, NamedTuple

from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.errors import AuditBroken, NotAuthentic
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.entries import GRADES, PROFILES
from medcrypt_hsm.vault.audit.fields import check_kek, introduction, p256_key
from medcrypt_hsm.vault.audit.trust_custody import GUEST


class Rekeyed(NamedTuple):
    """A re-key that was done, by its entry."""

    entry: int
    time: str
    generation: int


class NewKek(NamedTuple):
    """A token's new root KEK, as ``vault.rekey`` and ``vault.sync`` tell of it."""

    attestation: str
    generation: int
    kek: str  # SPKI DER in hex; empty for aes-kw

    def value(self) -> dict[str, Any]:
        return {"attestation": self.attestation, "generation": self.generation, "kek": self.kek}


class Introduced(NamedTuple):
    """An audit key that the log introduced, and the token that it speaks for."""

    name: str
    spki: bytes
    told: Mapping[str, str]  # as ``introduction`` makes it; ``kek`` and ``attestation`` of the newest root KEK
    kek: int | None  # generation of that KEK; None where the walk did not begin at the log's own beginning
    entry: int

    @property
    def id(self) -> bytes:
        return fingerprint(self.spki)

    @classmethod
    def parse(
        cls, detail: Mapping[str, Any], at: int, generation: int | None, custodians: Iterable[Mapping[str, Any]]
    ) -> Introduced:
        """Raises AuditBroken for a token that no honest program introduces. ``custodians``: the present ones."""
        try:
            told = introduction(detail, detail["name"])
            if not all(isinstance(value, str) for value in told.values()):
                raise ValueError("not text")
            if told["profile"] not in PROFILES or told["attestation"] not in GRADES:
                raise ValueError("unknown profile or grade")
            introduced = cls(told["name"], p256_key(told["audit_key"]), told, generation, at)
            if introduced.id.hex() != told["id"] or told["name"].startswith(GUEST):
                raise ValueError("fingerprint and key differ, or a guest's name")
            if any((held["serial"], held["model"]) == (told["serial"], told["model"]) for held in custodians):
                raise ValueError("a custodian's token")  # BG-1
            check_kek(told["profile"], told["kek"])
        except (KeyError, ValueError, NotAuthentic) as exc:
            raise AuditBroken(t("audit entry {entry} introduces no usable token", entry=at), at=at) from exc
        return introduced


class Signers:
    """``keys`` are the audit keys that count, DER by token id; ``names`` the names of every token there was.

    Where a name is not known, because the walk began at an anchor, an entry's own word is not compared.
    """

    def __init__(self, keys: Mapping[bytes, bytes], names: Mapping[bytes, str]) -> None:
        self.keys = dict(keys)
        self.names = dict(names)
        self.introduced: dict[bytes, Introduced] = {}
        self.retired: dict[bytes, Rekeyed] = {}  # by token id: which re-key retired it

    def copy(self) -> Signers:
        other = copy(self)
        other.keys, other.names = dict(self.keys), dict(self.names)
        other.introduced, other.retired = dict(self.introduced), dict(self.retired)
        return other

    def keys_at(self, sequence: int) -> list[bytes]:
        """The audit keys, DER, that the log had introduced by that entry, and not retired."""
        gone = {id_ for id_, rekeyed in self.retired.items() if rekeyed.entry <= sequence}
        return [known.spki for id_, known in self.introduced.items() if known.entry <= sequence and id_ not in gone]

    def name(self, introduced: Introduced) -> None:
        """Entries call it so from its own introduction on. Raises AuditBroken where key or name were there before."""
        at = introduced.entry
        if at == 1:
            # Nothing comes before it: the first key vouches for itself, and an anchor or a reader for the key.
            if self.keys and introduced.id not in self.keys:
                raise AuditBroken("the log begins with another key than the token remembers", at=1)
        elif introduced.id in self.names or introduced.id in self.keys or introduced.name in self.names.values():
            raise AuditBroken(t("audit entry {entry} introduces a key or a name twice", entry=at), at=at)
        self.names[introduced.id] = introduced.name

    def name_guest(self, id_: bytes, name: str, at: int) -> None:
        """The same for who opens by break-glass, whose key never counts as a token's. Raises AuditBroken."""
        if id_ in self.names or name in self.names.values():
            raise AuditBroken(
                t("audit entry {entry} opens with a key or a name that was there before", entry=at), at=at
            )
        self.names[id_] = name

    def add(self, introduced: Introduced) -> None:
        """From the next entry on its key counts. The first one's is the only one then."""
        if introduced.entry == 1:
            self.keys = {}
        self.keys[introduced.id] = introduced.spki
        self.introduced[introduced.id] = introduced

    def retire(self, id_: bytes, rekeyed: Rekeyed) -> None:
        """Its key counts no more. Raises KeyError for one that does not count."""
        del self.keys[id_]
        self.retired[id_] = rekeyed

    def take_kek(self, name: str, kek: NewKek, generation: int) -> None:
        """The token called ``name`` has a new root KEK. Raises ValueError or NotAuthentic."""
        if kek.generation != generation or kek.attestation not in GRADES:
            raise ValueError("a root key of another generation, or of no known grade")
        for known in self.introduced.values():
            if known.name == name and known.id in self.keys:
                check_kek(known.told["profile"], kek.kek)
                told = {**known.told, "attestation": kek.attestation, "kek": kek.kek}
                self.introduced[known.id] = known._replace(told=told, kek=generation)
                return
        # Not one of those introduced on this walk: it can only be told where every other token's name is known.
        names = [self.names.get(id_) for id_ in self.keys]
        if None not in names and name not in names:
            raise ValueError("a root key on a token that is not registered")
