"""The ends of a re-key: its signed intent, and what follows the commit or takes everything back (docs/spec/rekey.md).

In: an unlocked vault, and the tokens that are there. Out: a row ``rekey`` at the beginning; at the end a certificate,
or the vault as it was. What a kill interrupts, the next unlock finishes or takes back (``settle``), as the row's phase
says. Not here: what is made and committed in between (commit.py, sync.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from medcrypt_hsm.errors import Failed, MedcryptError, VaultBusy, VaultDamaged
from medcrypt_hsm.lifecycle import certificate, custody_upkeep, enroll, old_keks
from medcrypt_hsm.lifecycle.backup import backup
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.others import OpenToken, own
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import kek_name
from medcrypt_hsm.vault.audit.actions import (
    INTENDED,
    SYNCING,
    UNDONE,
    VAULT_REKEY,
    VAULT_RESTORE,
    VAULT_SYNC,
)
from medcrypt_hsm.vault.audit.entries import read_clear
from medcrypt_hsm.vault.audit.trust import COMMITTED, Rekey
from medcrypt_hsm.vault.store import atomic
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.store.surroundings import clear_the_way
from medcrypt_hsm.vault.unlocked import Unlocked


def begin(unlocked: Unlocked, action: str, reason: str, generation: int, entry: int | None = None) -> None:
    """The signed intent: from now on root KEKs of that generation, if they wrap nothing, may be destroyed.

    ``entry`` told what it is for; left out, the intent itself does.
    """
    with unlocked.change(action, outcome=INTENDED) as change:
        if unlocked.state.rekey is not None:
            raise VaultBusy("another command is re-keying the vault", "run the command again")
        intent = Rekey(generation, INTENDED, reason, change.sequence if entry is None else entry, change.time)
        change.put_trust("rekey", "", intent.value())
        change.detail.update(generation=generation, reason=reason)


def finish(
    unlocked: Unlocked, others: Sequence[OpenToken] = (), to: Path | None = None, custodians: Sequence[Token] = ()
) -> Certificate:
    """What a committed re-key has left to do. A kill anywhere in it lets the next run begin it again.

    ``to`` is where a person wants the certificate; ``custodians`` are tokens that may hold old shares.
    """
    intent = unlocked.state.rekey
    if intent is None or intent.phase != COMMITTED:
        raise RuntimeError("no re-key was committed")
    row = unlocked.file.entry(intent.entry)
    if row is None:
        raise VaultDamaged(
            t("audit entry {entry}, which tells what the re-key was for, is missing", entry=intent.entry)
        )
    told = unlocked.log.read_entry(row)
    unlocked.write_anchor()
    for other in others:
        if other.name in unlocked.state.tokens:
            unlocked.write_anchor_on(other.token, other.id)
    unlocked.file.compact()
    _fresh_backup(unlocked, intent.generation)
    unlocked.end_session()  # one that was started meanwhile
    destroyed = old_keks.destroy_old(unlocked, [own(unlocked), *others])
    old_keks.destroy_leftovers(unlocked, [own(unlocked), *others])
    old_shares = custody_upkeep.destroy_old(unlocked, custodians)
    base = unlocked.file.surroundings.certificate(intent.generation)
    made = certificate.make(unlocked, told, intent.generation, destroyed, old_shares, base)
    if not (_restored_since(unlocked, intent) and made.is_written):  # the written one tells of what was destroyed then
        made.write()
    with unlocked.change(told.action, told.subject) as change:
        for old in destroyed:
            change.delete_trust("doomed", old.row)
        for share in old_shares:
            change.delete_trust("oldshare", share.row)
        change.delete_trust("rekey", "")
        change.detail["certificate"] = made.value
    unlocked.write_anchor()
    for other in others:
        if other.name not in unlocked.state.tokens:
            enroll.take_back(other.token, unlocked.state.vault_id)
    with suppress(MedcryptError):  # all is on record; what is left opens nothing, and goes at the next ceremony or sync
        custody_upkeep.forget(unlocked, old_shares, custodians)
    return made if to is None else made.moved(to)


def _restored_since(unlocked: Unlocked, intent: Rekey) -> bool:
    """Is this the backup that the re-key made of itself, put back?"""
    entries = (read_clear(row) for row in unlocked.file.clear_entries() if row.sequence > intent.entry)
    return any(entry is not None and entry.action == VAULT_RESTORE for entry in entries)


def _fresh_backup(unlocked: Unlocked, generation: int) -> None:
    """Of the vault as it is now, opened and verified before a key is destroyed; those of earlier re-keys go."""
    surroundings = unlocked.file.surroundings
    target = surroundings.backup(generation)
    # The backup of a killed run may lack what was written since.
    clear_the_way(target, ours=_is_in_the_log(unlocked, target))
    clear_the_way(atomic.partial_of(target), ours=True)
    try:
        backup(unlocked, target)
    except OSError as exc:
        raise Failed(t("the backup {path} cannot be made: {reason}", path=target, reason=exc.strerror)) from exc
    for number in range(1, generation):
        if _is_in_the_log(unlocked, older := surroundings.backup(number)):
            clear_the_way(older, ours=True)


def _is_in_the_log(unlocked: Unlocked, file: Path) -> bool:
    """Does this vault's own log have everything that the backup holds? One of another history may be the last copy."""
    try:
        copy = open_store(Location.parse(file), in_use=False)
    except (MedcryptError, OSError):
        return False
    with closing(copy), suppress(MedcryptError):
        newest = copy.newest()
        known = None if newest is None else unlocked.file.entry(newest.sequence)
        return newest is not None and known is not None and known.hash == newest.hash
    return False


def roll_back(unlocked: Unlocked, opened: Sequence[OpenToken], why: str) -> None:
    """Undo what was intended and not committed: destroy the KEKs made for it, as far as their tokens are there.

    The file decides whether it was committed: an interrupt can come after the commit and before this process knows of
    it. Then this raises VaultBusy.
    """
    with unlocked.file.transaction():
        unlocked.catch_up()
        # A commit that failed half-way on a dying disk must not come back when its KEKs are gone: this write overwrites
        # it, and if this write fails too, nothing is destroyed.
        unlocked.file.write_nothing()
    intent = unlocked.state.rekey
    if intent is None or intent.phase != INTENDED:
        return
    for each in opened:
        keyset = unlocked.state.keyset_of(each.name)
        if keyset is None or keyset.kek != intent.generation:
            each.token.destroy(kek_name(unlocked.state.vault_id, intent.generation))
    with unlocked.change(VAULT_SYNC if intent.reason == SYNCING else VAULT_REKEY, outcome=UNDONE) as change:
        change.delete_trust("rekey", "")
        change.detail["generation"] = intent.generation
    row = unlocked.file.entry(intent.entry)
    if intent.reason != SYNCING and row is not None:
        told = unlocked.log.read_entry(row)
        with unlocked.change(told.action, told.subject, outcome=why):
            pass


def settle(unlocked: Unlocked) -> Certificate | None:
    """At every unlock: end what an interrupted run left. Returns the certificate, if it finished a committed re-key.

    What cannot be ended now waits, and ``status`` says why: it must not keep anybody from reading.
    """
    if unlocked.state.rekey is None and not old_keks.own_old_keks(unlocked):
        return None
    try:
        with unlocked.file.surroundings.alone():
            return settle_locked(unlocked)
    except (MedcryptError, OSError) as exc:
        unlocked.unsettled = getattr(exc, "message", "") or str(exc)
        return None


def settle_locked(unlocked: Unlocked) -> Certificate | None:
    """The same, where the caller has the directory's lock. Raises what kept it from ending."""
    with unlocked.file.transaction():
        unlocked.catch_up()  # what may be destroyed depends on what others did since
        unlocked.clock.entry_time(unlocked.state.newest_month)  # nothing is destroyed that could not be entered
    intent, made = unlocked.state.rekey, None
    if intent is not None and intent.phase == INTENDED:
        roll_back(unlocked, [own(unlocked)], "interrupted")
    elif intent is not None:
        made = finish(unlocked)
    if old_keks.own_old_keks(unlocked):
        old_keks.settle_old(unlocked, [own(unlocked)])
    return made
