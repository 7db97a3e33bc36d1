"""``Chain``: the audit log followed entry by entry, and whom it says to trust (docs/spec/audit.md).

In: rows of ``entries`` in order. Out: which audit keys are valid at the end, what the log told of their tokens, and how
often the vault was re-keyed; or AuditBroken naming the entry. Not here: files, and what the trust rows say (auditing.py
compares the two).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from medcrypt_hsm.crypto.p256 import fingerprint, verify_signature
from medcrypt_hsm.errors import AuditBroken, NotAuthentic
from medcrypt_hsm.vault.audit.actions import (
    BG_CLOSE,
    BG_OPEN,
    CEREMONY,
    DONE,
    INTENDED,
    INTRODUCE,
    NEW_CUSTODY,
    REASONS,
    RECOVER,
    REKEY,
    RESTORE,
    SYNC,
    SYNCING,
)
from medcrypt_hsm.vault.audit.entries import (
    GRADES,
    PROFILES,
    Entry,
    entry_hash,
    head_bytes,
    log_key_number,
    read_clear,
)
from medcrypt_hsm.vault.audit.fields import TOLD, check_kek, introduction, number, only, p256_key, refs, texts
from medcrypt_hsm.vault.audit.rules import GUEST, BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.trust_custody import DONE as OVER
from medcrypt_hsm.vault.audit.trust_custody import OPEN, Use
from medcrypt_hsm.vault.store.rows import EntryRow

if TYPE_CHECKING:
    from medcrypt_hsm.vault.audit.consent import Custody, Opening
    from medcrypt_hsm.vault.audit.statements import Request, Signed

_MONTH = re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)


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


class NewKek(NamedTuple):
    """A token's new root KEK, as ``vault.rekey`` and ``vault.sync`` tell of it."""

    attestation: str
    generation: int
    kek: str  # SPKI DER in hex; empty for aes-kw

    def value(self) -> dict[str, Any]:
        return {"attestation": self.attestation, "generation": self.generation, "kek": self.kek}


class Rekeyed(NamedTuple):
    """A re-key that was done, by its entry."""

    entry: int
    time: str
    generation: int


class NeedsWholeLog(Exception):
    """Break-glass was used behind the anchor: whether that counts hangs on a ceremony further back."""


class Guest(NamedTuple):
    """Who used break-glass for one patient: may write sealed entries, while the run lasts, and change nothing else."""

    id: bytes  # fingerprint of the key that signs
    request: Signed[Request]
    opened_at: str

    @property
    def spki(self) -> bytes:
        return self.request.told.signer

    def check_time(self, time: str) -> None:
        """Of the guest's own next entry: no registered token would vouch for a later one. Raises BreakGlassRefused."""
        if time > self.request.told.expires:
            raise BreakGlassRefused(Rule.BG_4, f"the request ended at {self.request.told.expires}, meanwhile")


class OldShareTold(NamedTuple):
    """A share of an earlier ceremony, as the log told of it, and the re-key that made it an old one."""

    told: Mapping[str, Any]
    rekeyed: Rekeyed


class Chain:
    """A verified prefix of the log, extended one entry at a time.

    ``keys`` are the audit keys valid at its end, by token id, and ``names`` the tokens' names. Started at hash(0) with
    no keys, the first entry must introduce the key that signs it; started at an anchor, the keys are the anchor's.
    """

    def __init__(
        self,
        vault_id: bytes,
        sequence: int,
        hash_: bytes,
        keys: Mapping[bytes, bytes],
        names: Mapping[bytes, str] | None = None,
    ) -> None:
        self.vault_id = vault_id
        self.sequence = sequence
        self.hash = hash_
        self.keys = dict(keys)
        self.names = dict(names or {})  # where it is not known, an entry's own word is not compared
        self.trust = b""
        self.signer = b""  # of the newest head
        self.time = ""  # of the newest entry in the clear
        self.log_key = 0  # the highest one that seals an entry
        self.introduced: dict[bytes, Introduced] = {}
        self.rekeys: dict[int, Rekeyed] = {}  # by entry
        self.retired: dict[bytes, Rekeyed] = {}  # by token id: which one retired it
        self.generation = 1 if sequence == 0 else None  # None: not known yet, further back
        self.newest_log_key = 1 if sequence == 0 else None
        self.shredded: dict[str, Rekeyed] = {}  # by month
        self.erased: dict[str, Rekeyed] = {}  # by pairing
        self._begun: tuple[str, int, str] | None = None  # a re-key or sync that was intended and has not ended: reason
        self._knows_begun = sequence == 0
        self._unchecked: EntryRow | None = None  # the row at ``sequence``, if its own head was left out
        self.settled = sequence, hash_  # the newest entry of a registered token: what an anchor may name
        self.settled_signer = b""
        # Break-glass
        self.custody: Custody | None = None
        self.knows_custody = self._knows_uses = sequence == 0
        self.ceremonies: set[bytes] = set()
        self.old_shares: dict[tuple[bytes, str], OldShareTold] = {}
        self.uses: dict[bytes, Use] = {}  # by request, those that a registered token's entry followed
        self.unnoted: dict[bytes, Use] = {}  # the others
        self.guest: Guest | None = None
        self.recovering: dict[bytes, bytes] = {}  # request of a use of phase open → the token that it introduced
        self.claims: list[tuple[int, bytes]] = []  # entries that requests name, with their hash: for whoever has them

    def copy(self) -> Chain:
        """To be extended by what may yet be refused: one that raised half way is of no further use."""
        other = copy(self)
        for name in ("keys", "names", "introduced", "rekeys", "retired", "shredded", "erased", "old_shares", "uses"):
            setattr(other, name, dict(getattr(self, name)))
        other.ceremonies, other.unnoted = set(self.ceremonies), dict(self.unnoted)
        other.recovering, other.claims = dict(self.recovering), list(self.claims)
        return other

    def keys_at(self, sequence: int) -> list[bytes]:
        """The audit keys, DER, that the log had introduced by that entry, and not retired."""
        gone = {id_ for id_, rekeyed in self.retired.items() if rekeyed.entry <= sequence}
        return [known.spki for id_, known in self.introduced.items() if known.entry <= sequence and id_ not in gone]

    def extend(self, row: EntryRow, *, check_head: bool) -> Entry | None:
        """Take the next entry; its content if it is in the clear. Raises AuditBroken.

        ``check_head=False`` leaves out this head's signature: the hash chain lets a later head vouch for it. Entries
        that change the keys are always checked.
        """
        at = row.sequence
        if at != self.sequence + 1:
            raise AuditBroken(f"audit entry {self.sequence + 1} is missing", at=self.sequence + 1)
        if entry_hash(self.hash, at, row.trust, row.signer, row.stored) != row.hash or len(row.trust) != 32:
            raise AuditBroken(f"audit entry {at} was altered", at=at)
        entry = read_clear(row)
        introduced = self._introduction(entry.detail, at) if entry is not None and entry.action == INTRODUCE else None
        opening = self._opening(entry, row) if entry is not None and entry.action == BG_OPEN else None
        if opening is not None and opening.token is not None:
            introduced = self._introduction(opening.token, at)
        keys, names = self.keys, self.names
        if self.guest is not None and opening is None:
            self._check_guest(row, entry, self.guest)
            keys = keys | {self.guest.id: self.guest.spki}
        if introduced is not None:
            names = names | {introduced.id: introduced.name}
            if at == 1:
                # Nothing comes before it: the first key vouches for itself, and an anchor or a reader for the key.
                if self.keys and introduced.id not in self.keys:
                    raise AuditBroken("the log begins with another key than the token remembers", at=1)
                keys = {introduced.id: introduced.spki}
            elif introduced.id in self.names or introduced.id in self.keys or introduced.name in self.names.values():
                raise AuditBroken(f"audit entry {at} introduces a key or a name twice", at=at)
        if opening is not None:
            if row.signer in self.names or opening.name in self.names.values():
                raise AuditBroken(f"audit entry {at} opens with a key or a name that was there before", at=at)
            names = names | {row.signer: opening.name}
            keys = {row.signer: opening.request.told.signer}
        if checked := check_head or (entry is not None and entry.action != RESTORE):
            self.check_head(row, keys)
        if entry is None:
            self.log_key = max(self.log_key, log_key_number(row))
        else:
            check_token(row, entry, names)
            self._check_clear(entry, at)
            self.time = entry.time
        self._note_uses(row, entry, opening)
        if introduced is not None:
            self.keys = self.keys | {introduced.id: introduced.spki} if at > 1 else {introduced.id: introduced.spki}
            self.introduced[introduced.id] = introduced
        elif entry is not None and entry.action in (REKEY, SYNC):
            try:
                self._follow(entry, row)
            except (KeyError, ValueError, TypeError, AttributeError, NotAuthentic) as exc:
                raise AuditBroken(f"audit entry {at} tells of no re-key that can be: {exc}", at=at) from exc
        self.names = names
        self.sequence, self.hash, self.trust, self.signer = at, row.hash, row.trust, row.signer
        self._unchecked = None if checked else row
        if self.guest is None and row.signer in self.keys | dict.fromkeys(self.retired):
            self.settled, self.settled_signer = (at, row.hash), row.signer
        return entry

    def _check_clear(self, entry: Entry, at: int) -> None:
        """Its time, and what a restore says that it abandoned. Raises AuditBroken."""
        if entry.time < self.time:
            raise AuditBroken(f"audit entry {at} is older than the one before it", at=at)
        if entry.action == RESTORE:
            sequence, hash_ = (entry.detail.get(member) for member in ("abandoned_sequence", "abandoned_hash"))
            numbered = type(sequence) is int and 0 <= sequence < 1 << 63
            hashed = isinstance(hash_, str) and re.fullmatch("[0-9a-f]{64}", hash_) is not None
            if not (numbered and hashed):
                raise AuditBroken(f"audit entry {at} does not say what the restore abandoned", at=at)

    def check_head(self, row: EntryRow, keys: Mapping[bytes, bytes] | None = None) -> None:
        """Raises AuditBroken unless the head of ``row`` verifies under a key valid just before it."""
        spki = (self.keys if keys is None else keys).get(row.signer)
        if spki is None:
            raise AuditBroken(f"the head of audit entry {row.sequence} is signed by an unknown key", at=row.sequence)
        try:
            verify_signature(spki, row.signature, head_bytes(self.vault_id, row.sequence, row.hash, row.trust))
        except NotAuthentic as exc:
            raise AuditBroken(f"the head of audit entry {row.sequence} does not verify", at=row.sequence) from exc

    # Introductions

    def _introduction(self, detail: Mapping[str, Any], at: int) -> Introduced:
        """Raises AuditBroken for a token that no honest program introduces."""
        try:
            told = introduction(detail, detail["name"])
            if not all(isinstance(value, str) for value in told.values()):
                raise ValueError("not text")
            if told["profile"] not in PROFILES or told["attestation"] not in GRADES:
                raise ValueError("unknown profile or grade")
            introduced = Introduced(told["name"], p256_key(told["audit_key"]), told, self.generation, at)
            if introduced.id.hex() != told["id"] or told["name"].startswith(GUEST):
                raise ValueError("fingerprint and key differ, or a guest's name")
            if self.custody is not None and any(
                (held["serial"], held["model"]) == (told["serial"], told["model"])
                for held in self.custody.told.values()
            ):
                raise ValueError("a custodian's token")  # BG-1
            check_kek(told["profile"], told["kek"])
        except (KeyError, ValueError, NotAuthentic) as exc:
            raise AuditBroken(f"audit entry {at} introduces no usable token", at=at) from exc
        return introduced

    # Break-glass

    def _opening(self, entry: Entry, row: EntryRow) -> Opening:
        """Raises AuditBroken for an opening that does not count, and NeedsWholeLog."""
        from medcrypt_hsm.vault.audit.consent import Opening  # slow, and needed only where break-glass was used

        at = row.sequence
        if not self.knows_custody:
            raise NeedsWholeLog
        try:
            if self.custody is None:
                raise ValueError("there are no custodians")
            used = {*self.uses, *self.unnoted}
            opening = Opening.parse(entry.detail, entry.time, self.custody, self.vault_id, used)
            request = opening.request.told
            if fingerprint(request.signer) != row.signer:
                raise ValueError("it is signed by another key than the request names")
            if opening.token is None and row.trust != self.trust:
                raise ValueError("it changes the trust state")
            if opening.token is not None and set(opening.token) != {"name", *TOLD}:
                raise ValueError("it introduces no token as the spec has it")
            if opening.token is not None and opening.token["id"] == row.signer.hex():
                raise ValueError("it introduces the request's own key, which signs nothing more")
            if not request.sequence <= self.settled[0]:
                raise ValueError("the request names an entry that is not there, or a guest's")
            self.claims.append((request.sequence, request.hash))
        except (KeyError, ValueError, TypeError, AttributeError, NotAuthentic, BreakGlassRefused) as exc:
            raise AuditBroken(f"audit entry {at} opens the vault without right: {exc}", at=at) from exc
        if self._unchecked is not None:
            # From here on heads are a stranger's, which must not vouch for what stands before.
            guest = {} if self.guest is None else {self.guest.id: self.guest.spki}
            self.check_head(self._unchecked, self.keys | guest)
        return opening

    def _check_guest(self, row: EntryRow, entry: Entry | None, guest: Guest) -> None:
        """Raises AuditBroken for what a guest may not write."""
        if row.signer != guest.id:
            if entry is not None and entry.action == BG_CLOSE:
                raise AuditBroken(f"audit entry {row.sequence} ends a use of break-glass that is another's")
            return
        closes = entry is not None and entry.action == BG_CLOSE and entry.detail == {"request": guest.request.id.hex()}
        late = entry is not None and entry.time > guest.request.told.expires
        if (entry is not None and not closes) or late or row.trust != self.trust:
            raise AuditBroken(
                f"audit entry {row.sequence} is of a guest, who may not write it: break-glass was for one patient",
                at=row.sequence,
            )

    def _note_uses(self, row: EntryRow, entry: Entry | None, opening: Opening | None) -> None:
        """Who used break-glass, and whose run that begins or ends. Raises AuditBroken."""
        if opening is not None:
            request = opening.request
            practice = opening.token is not None
            use = Use(request.id, request.told.scope, row.sequence, self.time, OPEN if practice else OVER)
            self.unnoted[request.id] = use
            if not practice:
                self.guest = Guest(row.signer, request, self.time)
                return
            assert opening.token is not None
            self.recovering[request.id] = bytes.fromhex(opening.token["id"])
        elif self.guest is not None and row.signer == self.guest.id:
            if entry is not None:
                self.guest = None  # it can only be its close
            return
        elif entry is not None and entry.action == BG_CLOSE:
            raise AuditBroken(f"audit entry {row.sequence} ends a use of break-glass that there is not")
        self.guest = None
        self.uses |= self.unnoted
        self.unnoted = {}

    def _check_reason(self, reason: str) -> None:
        """Are there custodians, or none, and a practice to recover? Raises ValueError."""
        if self.knows_custody and reason in NEW_CUSTODY and (reason == CEREMONY) != (self.custody is None):
            raise ValueError("a first ceremony where there was one, or another where there was none")
        if self._knows_uses and reason == RECOVER and not self.recovering:
            raise ValueError("a recovery without break-glass")

    def _take_custody(self, reason: str | None, detail: Mapping[str, Any], row: EntryRow, rekeyed: Rekeyed) -> None:
        """Whether a re-key made new custodians, and did what its reason says. Raises ValueError and its like."""
        if reason is not None and (reason in NEW_CUSTODY) != ("custody" in detail):
            raise ValueError("custodians, or none, against its reason")
        if reason == RECOVER:
            if self._knows_uses and row.signer not in self.recovering.values():
                raise ValueError("a recovery by another token than break-glass introduced")
            retired = {bytes.fromhex(text) for text in texts(detail["retired"], _HEX)}
            if retired != set(self.keys) - {row.signer}:
                raise ValueError("a recovery that does not retire every other token")
            self.recovering = {}
            self.uses = {id_: use._replace(phase=OVER) for id_, use in self.uses.items()}
        if "custody" not in detail:
            return
        from medcrypt_hsm.vault.audit.consent import Custody  # likewise

        custody = Custody.parse(detail["custody"], rekeyed.entry, rekeyed.time, row.signer)
        if custody.ceremony in self.ceremonies:
            raise ValueError("a ceremony id that was there before")
        if self.custody is not None:
            for name, told in self.custody.told.items():
                self.old_shares[self.custody.ceremony, name] = OldShareTold(told, rekeyed)
        self.custody, self.knows_custody = custody, True
        self.ceremonies.add(custody.ceremony)
        for id_, use in self.uses.items():
            if not use.answered:
                self.uses[id_] = use._replace(answered=rekeyed.time)

    # Re-keying

    def _follow(self, entry: Entry, row: EntryRow) -> None:
        """What ``vault.rekey`` and ``vault.sync`` change. Raises ValueError and its like for what cannot be."""
        detail, action = entry.detail, entry.action
        generation = number(detail["generation"])
        if self.generation is not None and generation != self.generation + (action == REKEY):
            raise ValueError("its generation does not follow")
        if entry.outcome == INTENDED:
            if self._begun is not None:
                raise ValueError("another one has not ended")
            if detail["reason"] not in (REASONS if action == REKEY else (SYNCING,)):
                raise ValueError("no known reason")
            only(detail, "generation", "reason")
            self._check_reason(detail["reason"])
            self._begun, self._knows_begun = (action, generation, detail["reason"]), True
            return
        if self._knows_begun and (self._begun is None or self._begun[:2] != (action, generation)):
            raise ValueError("it was not intended")
        reason = None if self._begun is None else self._begun[2]
        self._begun, self._knows_begun = None, True
        if entry.outcome != DONE:
            only(detail, "generation")
            return
        for name, told in detail["keks"].items():
            only(told, "attestation", "generation", "kek")
            self._new_kek(name, NewKek(told["attestation"], number(told["generation"]), told["kek"]), generation)
        if action == SYNC:
            only(detail, "generation", "keks")
        else:
            optional = ("custody", "writes", "deletes")
            only(detail, "generation", "keks", "log_key", "retired", "shredded", "erased", optional=optional)
            rekeyed = Rekeyed(row.sequence, entry.time, generation)
            self._take_custody(reason, detail, row, rekeyed)
            self._take_rekey(detail, row, rekeyed)
            self.generation = generation

    def _new_kek(self, name: str, kek: NewKek, generation: int) -> None:
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

    def _take_rekey(self, detail: Mapping[str, Any], row: EntryRow, rekeyed: Rekeyed) -> None:
        for member in {"writes", "deletes"} & set(detail):
            refs(detail[member])
        log_key = number(detail["log_key"])
        if self.newest_log_key is not None and log_key != self.newest_log_key + 1:
            raise ValueError("its log key does not follow")
        self.newest_log_key = log_key
        pairings = texts(detail["erased"], _HEX)
        if not all(len(pairing) == 16 for pairing in pairings):
            raise ValueError("not a pairing")
        self.erased |= dict.fromkeys(pairings, rekeyed)
        months = texts(detail["shredded"], _MONTH)
        if self.shredded.keys() & set(months):
            raise ValueError("a month is shredded twice")
        self.shredded |= dict.fromkeys(months, rekeyed)
        for text in texts(detail["retired"], _HEX):
            retired = bytes.fromhex(text)
            if retired == row.signer:
                raise ValueError("a token retires itself")
            del self.keys[retired]  # a KeyError for one that is not valid
            self.retired[retired] = rekeyed
            for request in [request for request, token in self.recovering.items() if token == retired]:
                del self.recovering[request]  # nobody goes on with it
                self.uses[request] = self.uses[request]._replace(phase=OVER)
        self.rekeys[rekeyed.entry] = rekeyed


def check_token(row: EntryRow, entry: Entry, names: Mapping[bytes, str]) -> None:
    """Nobody writes in another's name: the entry's token is the one that signed it. Raises AuditBroken."""
    if names.get(row.signer, entry.token) != entry.token:
        raise AuditBroken(
            f"audit entry {row.sequence} names token {entry.token!a}, but {names[row.signer]!a} signed it",
            at=row.sequence,
        )
