"""The certificate of a re-key: what was destroyed, and the fate of every copy (docs/spec/rekey.md, "Certificate").

In: an unlocked vault after its commit, and which old root KEKs were proven destroyed. Out: a canonical JSON value, and
a Markdown text for people, a C2SP signed note that names the JSON's digest. It says plainly what can still be opened,
and by whom. Not here: destroying anything.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from medcrypt_hsm.errors import Failed, UsageError, VaultDamaged
from medcrypt_hsm.lifecycle.certificate_text import markdown
from medcrypt_hsm.notation import canonical, timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.actions import (
    BREAKGLASS_OPEN,
    DONE,
    INTENDED,
    TOKEN_INTRODUCE,
    VAULT_BACKUP,
    VAULT_REKEY,
    VAULT_SYNC,
)
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.trust import OldKek, TrustState
from medcrypt_hsm.vault.audit.trust_custody import OldShare
from medcrypt_hsm.vault.keyset import PATIENT, V1_SECRET
from medcrypt_hsm.vault.store import atomic
from medcrypt_hsm.vault.store.rows import EntryRow
from medcrypt_hsm.vault.store.surroundings import clear_the_way, sync_directory
from medcrypt_hsm.vault.unlocked import Unlocked

_OUTSIDE = (
    ("pairing-codes", "pictures and printouts of a pairing code: each derives every later month of its pairing"),
    ("phones", "the patients' own phones: they keep their keys and texts"),
    ("chats", "copies of messages at the chat services: whoever has a key of that time reads them"),
    ("plaintexts", "texts that were copied out of the program, and printouts"),
    (
        "log",
        "the audit log: it still tells which patients there were, sealed, and in the clear which pairings had keys",
    ),
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """``value``: the JSON document. ``text``: the signed note, which names the digest of ``document``."""

    value: Mapping[str, Any]
    text: str
    base: Path  # of the two files' names

    @property
    def files(self) -> tuple[Path, Path]:
        """The JSON document and the signed note."""
        return self.base.with_name(self.base.name + ".json"), self.base.with_name(self.base.name + ".md")

    @property
    def document(self) -> bytes:
        return canonical(self.value) + b"\n"

    @property
    def is_written(self) -> bool:
        """Is there a certificate of this very re-key under that name already?"""
        return all(self._tells_of_the_same(file) for file in self.files)

    def write(self) -> None:
        """Each file whole, or not there. What an interrupted run wrote is replaced. Raises Failed."""
        try:
            for target, content in zip(self.files, (self.document, self.text.encode()), strict=True):
                partial = atomic.partial_of(target)
                clear_the_way(partial, ours=True)
                with atomic.new_file(partial) as file:
                    file.write(content)
                    atomic.write_through(file)
                clear_the_way(target, ours=self._tells_of_the_same(target))
                partial.replace(target)
            sync_directory(self.base.parent)
        except OSError as exc:
            raise Failed(
                t("the certificate cannot be written: {path}: {reason}", path=exc.filename, reason=exc.strerror)
            ) from exc

    def _tells_of_the_same(self, file: Path) -> bool:
        """Is it a certificate of this very re-key, of a run that was interrupted?"""
        try:
            with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as content:
                return str(self.value["hash"]).encode() in content.read(1 << 20)
        except OSError:
            return False

    def moved(self, base: Path) -> Certificate:
        """Moved to where a person wants it, if that is possible; else it stays.

        Both files have their new names before they lose the old ones.
        """
        there = replace(self, base=base)
        try:
            for target in there.files:  # a file may have appeared there since the name was checked
                clear_the_way(target, ours=there._tells_of_the_same(target))
            try:
                for source, target in zip(self.files, there.files, strict=True):
                    os.link(source, target)
            except OSError:  # another file system, or one without links
                there.write()
            sync_directory(base.parent)
        except (OSError, Failed):
            return self
        for source in self.files:
            source.unlink(missing_ok=True)
        return there


def base_of(file: Path | None) -> Path | None:
    """The name that a person gave, without its suffix. Raises UsageError for a file in the way, or no directory."""
    if file is None:
        return None
    base = file.with_suffix("") if file.suffix in (".md", ".json") else file
    for suffix in (".json", ".md"):
        if base.with_name(base.name + suffix).exists():
            raise UsageError(
                t("{name}{suffix} exists already", name=base.name, suffix=suffix), "name a new file for the certificate"
            )
    if not base.parent.is_dir():
        raise UsageError(t("there is no directory {directory}", directory=base.parent), "make it first, with mode 0700")
    return base


def make(
    unlocked: Unlocked,
    told: Entry,
    generation: int,
    destroyed: Collection[OldKek],
    old_shares: Collection[OldShare],
    base: Path,
) -> Certificate:
    """Signed by the token in use. ``told``: the entry that said what the re-key is for.

    ``destroyed`` and ``old_shares``: what was proven destroyed, of what the trust state still has.
    """
    state = unlocked.state
    committed, custody = _committed(unlocked, generation)
    left = [old for old in state.doomed if old not in destroyed]
    value: dict[str, Any] = {
        "version": 1,
        "vault": state.vault_id.hex(),
        "action": told.action,
        "subject": told.subject,
        "actor": told.actor,
        "intended": told.time,
        "time": timestamp(unlocked.clock.now()),
        "generation": generation,
        "entry": committed.sequence,
        "hash": committed.hash.hex(),
        "signer": unlocked.registered.id.hex(),
        "tokens": [_token(unlocked, old, old not in left) for old in state.doomed],
        "backups": list(_backups(unlocked, committed.sequence, left, old_shares)),
        "custody": custody,
        "escrow": _escrow(state),
        "old_shares": [_share(share, share in old_shares) for share in state.old_shares],
        "v1_secrets": _v1_secrets(unlocked),
        "outside": [{"what": what, "words": words} for what, words in _OUTSIDE],
    }
    digest = sha256(canonical(value) + b"\n").hexdigest()
    return Certificate(value, unlocked.log.signed_note(markdown(value, digest)), base)


def _committed(unlocked: Unlocked, generation: int) -> tuple[EntryRow, Mapping[str, Any] | None]:
    """The entry that committed it, and the custodians that it made, if it did."""
    for row in unlocked.file.clear_entries():
        entry = entries.read_clear(row)
        if entry is None or (entry.action, entry.outcome) != (VAULT_REKEY, DONE):
            continue
        if entry.detail["generation"] == generation:
            return row, entry.detail.get("custody")
    raise VaultDamaged(t("the log does not tell of keyset {keyset}", keyset=generation))


def _escrow(state: TrustState) -> str:
    if (present := state.breakglass) is None:
        return t("none: this vault has no break-glass key")
    who = ", ".join(present.custodians)
    return t(
        "any {threshold} of {count} custodians ({custodians}) open the new keyset, and every copy "
        "of the vault that was made since {since}, until 'medcrypt breakglass rotate'",
        threshold=present.threshold,
        count=len(present.custodians),
        custodians=who,
        since=present.since,
    )


def _share(share: OldShare, destroyed: bool) -> dict[str, Any]:
    return {"ceremony": share.ceremony.hex(), "name": share.name, "serial": share.serial, "destroyed": destroyed}


def _token(unlocked: Unlocked, old: OldKek, destroyed: bool) -> dict[str, Any]:
    state = unlocked.state
    known = state.tokens.get(old.token) or state.retired[old.token]
    return {"name": old.token, "serial": known.serial, "kek": old.kek, "destroyed": destroyed}


def _backups(
    unlocked: Unlocked, committed: int, left: Collection[OldKek], destroyed: Collection[OldShare]
) -> Iterator[dict[str, Any]]:
    """Every backup that was made before, and who can still open it: tokens that were away, and custodians."""
    # Two backups of one name lie in two places. The last member is the ceremony of that time.
    made: list[tuple[int, str, str, str]] = []
    born: dict[tuple[str, int], int] = {}  # token name and generation of a root KEK → the entry that told of it
    alive = _living_ceremonies(unlocked, destroyed)
    generation, ceremony = 1, ""
    for sequence, entry in log.numbered(unlocked):
        if sequence >= committed:
            break
        if entry.action == VAULT_BACKUP and entry.outcome == INTENDED:
            made.append((sequence, entry.subject, entry.time, ceremony))
        elif entry.action == VAULT_BACKUP and made and made[-1][1] == entry.subject:
            made.pop()  # that backup failed
        elif entry.action == TOKEN_INTRODUCE:
            born[entry.subject, generation] = sequence
        elif entry.action == BREAKGLASS_OPEN and "token" in entry.detail:
            born[entry.detail["token"]["name"], generation] = sequence
        elif entry.action in (VAULT_REKEY, VAULT_SYNC) and entry.outcome == DONE:
            generation = entry.detail["generation"]
            born |= {(name, generation): sequence for name in entry.detail["keks"]}
            ceremony = entry.detail.get("custody", {}).get("ceremony", ceremony)
    for sequence, name, time, held in made:
        opened_by = {d.token for d in left if born[d.token, d.kek] < sequence < _opens_until(unlocked, d)}
        ours = unlocked.file.surroundings.generation_of(name)
        deleted = ours is not None and ours < unlocked.state.generation
        yield {
            "ceremony": held if held in alive else "",
            "deleted": deleted,
            "name": name,
            "opened_by": sorted(opened_by),
            "time": time,
        }


def _living_ceremonies(unlocked: Unlocked, destroyed: Collection[OldShare]) -> set[str]:
    """Those whose break-glass key somebody may still have: enough shares are left, or a machine used it."""
    state = unlocked.state
    alive = set() if state.breakglass is None else {state.breakglass.ceremony.hex()}
    ceremony, thresholds = "", {}
    for row in unlocked.file.clear_entries():
        entry = entries.read_clear(row)
        if entry is not None and entry.action == BREAKGLASS_OPEN:
            alive.add(ceremony)
        elif entry is not None and "custody" in entry.detail:
            ceremony = entry.detail["custody"]["ceremony"]
            thresholds[ceremony] = entry.detail["custody"]["threshold"]
    for old, threshold in thresholds.items():
        shares = [s for s in state.old_shares if s.ceremony.hex() == old and s not in destroyed]
        if len(shares) >= threshold:
            alive.add(old)
    return alive


def _opens_until(unlocked: Unlocked, old: OldKek) -> int:
    """The audit entry from which on files do not open with this old root KEK any more.

    That of a ``p256-hpke`` token which is away wraps each newer keyset too.
    """
    retired = unlocked.state.retired.get(old.token)
    profile = unlocked.state.tokens[old.token].profile if retired is None else retired.profile
    if profile != P256_HPKE:
        return old.entry
    return unlocked.log.sequence + 1 if retired is None else retired.entry


def _v1_secrets(unlocked: Unlocked) -> int:
    """How many pairings of version 1 the vault keeps a secret of: it derives every month's key."""
    pairings = {row.pairing for row in unlocked.rows.all_sealed(PATIENT)}
    return sum(row.pairing in pairings for row in unlocked.rows.all_sealed(V1_SECRET))
