"""Putting a backup back.

This is the only way in which a vault older than the token's anchor is accepted: the token's KEK must open its keyset,
an entry in the clear names what was abandoned, the draft takes the old vault's place at once, and only then does the
token forget. A kill anywhere leaves the old vault, or the new one with a restore that the next unlock completes. In: a
backup, an open token, a person who agrees to the loss. Out: an unlocked vault. Not here: making a backup (backup.py),
and how a draft takes a vault's place (vault/store).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from medcrypt_hsm.errors import (
    NotAuthentic,
    VaultBusy,
    VaultDamaged,
    VaultError,
    VaultForeign,
    VaultMissing,
)
from medcrypt_hsm.lifecycle.others import NO_OTHERS, OtherTokens, gather_all
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.anchoring import Anchor, find_anchor
from medcrypt_hsm.vault.audit import entries, trust
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_OPEN, VAULT_RESTORE
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.audit.verify import check_time, verified_chain
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.keyset import VaultKeyset
from medcrypt_hsm.vault.store.rows import EntryRow, Location
from medcrypt_hsm.vault.store.store import Store, open_draft, open_store
from medcrypt_hsm.vault.store.surroundings import surroundings_of
from medcrypt_hsm.vault.unlock import open_keyset, prove_audit_key
from medcrypt_hsm.vault.unlocked import Unlocked


@dataclass(frozen=True, slots=True)
class Loss:
    """What putting a backup back would abandon."""

    backup_ends: int
    token_has_seen: int
    vault_ends: int | None  # None: there is no readable vault in its place
    common: int | None  # the last entry that backup and present vault share; None without a readable vault
    entries_lost: int  # entries of the present vault, or at least of what the token has seen, that the backup lacks
    departs: bool  # the backup is of another history than the token remembers
    anchor_lost: bool = False  # the token remembers nothing: whether the backup is old or of another history is unknown
    newest_hash: bytes = b""  # of the backup's newest entry, to compare with a checkpoint
    vouched: tuple[int, ...] = ()  # entries of checkpoints that the backup continues
    vouchers: tuple[str, ...] = ()  # other tokens that were present and whose anchors the backup continues
    lost: tuple[tuple[str, str], ...] = ()  # action and subject of those entries, as far as they can be read


@dataclass(frozen=True, slots=True)
class Vouching:
    """What speaks for a backup beside the token's own memory: checkpoints kept elsewhere, and the other tokens.

    The others are asked only where the token has lost its anchor, and only those that are present.
    """

    since: Sequence[Checkpoint] = ()
    others: OtherTokens = NO_OTHERS


ALONE = Vouching()


def restore(
    vault: Location,
    source: Location,
    token: Token,
    name: str,
    agree: Callable[[Loss], None],
    *,
    vouching: Vouching = ALONE,
    actor: str,
    clock: Clock = system_clock,
) -> Unlocked:
    """Put the backup ``source`` in the place of ``vault``; unlocked when it returns.

    ``agree`` is told what would be lost and raises to stop. Raises VaultError for a backup that does not verify, of
    another vault, from before a re-key, or that does not continue a checkpoint; nothing is replaced then.
    """
    surroundings = surroundings_of(vault)
    surroundings.make()
    with surroundings.alone():  # the draft's name is the same for everybody
        return _restore(vault, source, token, name, agree, vouching, (actor, clock))


def _restore(
    vault: Location,
    source: Location,
    token: Token,
    name: str,
    agree: Callable[[Loss], None],
    vouching: Vouching,
    by: tuple[str, Clock],
) -> Unlocked:
    # Copied first, and verified where nobody else writes: the source may lie on a stick or a share, and what changed
    # there while a person thinks about the loss would be signed unseen.
    with closing(open_store(source, in_use=False)) as backup:
        file = open_draft(vault, backup)
    try:
        with file.snapshot():
            state = trust.parse(file.trust_rows())
        registered = state.tokens.get(name)
        if registered is None:
            raise VaultForeign(
                t("the backup knows no token called {token}", token=name), "use a token that was registered in it"
            )
        chain = verified_chain(file, [token.audit_key for token in state.tokens.values()], vouching.since)
        _same_vault(vault, state, file)
        prove_audit_key(token, state.vault_id, registered)
        anchor = find_anchor(token, state.vault_id, registered)
        if anchor is not None:
            _same_keys(file, state, anchor)
        keyset = _open_keyset(token, state, name)

        unlocked = Unlocked(file, token, registered, state, keyset, chain, *by)
        log.verify_rows(unlocked)
        for note in vouching.since:
            if (row := file.entry(note.sequence)) is not None:
                check_time(note, unlocked.log.read_entry(row))
        unlocked.look_at_clock()
        vouchers: list[str] = []
        if anchor is None:  # raises where one of them knows a newer file or another history
            with gather_all(unlocked, vouching.others, *state.tokens) as opened:
                vouchers = [other.name for other in opened]
        loss = replace(
            _loss(vault, unlocked, anchor),
            anchor_lost=anchor is None,
            newest_hash=chain.hash,
            vouchers=tuple(vouchers),
            vouched=tuple(note.sequence for note in vouching.since),
        )
        agree(loss)
        remembered = (0, b"") if anchor is None else (anchor.sequence, anchor.hash)
        abandoned = {"abandoned_sequence": remembered[0], "abandoned_hash": remembered[1].hex()}
        with unlocked.change(VAULT_RESTORE, name, named_month=True) as change:
            change.detail.update(abandoned)

        def unchanged(present: EntryRow | None) -> None:
            """Under the lock: what would be lost is still what the person agreed to."""
            ends = present.sequence if present is not None else 0
            if find_anchor(token, state.vault_id, registered) != anchor or ends != (loss.vault_ends or 0):
                raise VaultBusy("the vault was written to meanwhile: more would be lost", "run the command again")

        file.take_place(unchanged)
    except BaseException:
        file.discard()
        raise

    unlocked.move_to(open_store(vault))
    unlocked.write_anchor()
    return unlocked


def _same_vault(vault: Location, state: TrustState, backup_file: Store) -> None:
    """A vault that can be read must be the backup's, and not re-keyed since: what was destroyed would come back.

    Nor may break-glass have been used since without a new ceremony: that would be forgotten. A vault that cannot be
    read is what restoring is for.
    """
    try:
        present = open_store(vault)
    except (VaultMissing, VaultDamaged):
        return
    try:
        with present.snapshot():
            other = trust.parse(present.trust_rows())
            forgotten = _forgotten_use(present, backup_file)
    except VaultDamaged:
        return
    finally:
        present.close()
    if other.vault_id != state.vault_id:
        raise VaultForeign(
            t("the backup is of another vault than the one at {vault}", vault=vault), "name the right file with --vault"
        )
    if other.generation > state.generation:
        raise VaultError(
            t(
                "the vault at {vault} was re-keyed since this backup was made: what was destroyed would come back",
                vault=vault,
            ),
            "use a backup that was made after it; without one, call the officer",
        )
    if forgotten is not None:
        raise VaultError(
            t(
                "break-glass was used since this backup was made (audit entry {entry}): that would be forgotten",
                entry=forgotten.sequence,
            ),
            "run 'medcrypt breakglass rotate' with the vault as it is, and make a new backup",
        )


def _forgotten_use(present: Store, backup_file: Store) -> EntryRow | None:
    """A use of break-glass that only the present vault tells of, and that no ceremony has answered."""
    found: EntryRow | None = None
    for row in present.clear_entries():
        entry = entries.read_clear(row)
        if entry is not None and entry.action == BREAKGLASS_OPEN and not backup_file.has_entry_hash(row.hash):
            found = row
        elif entry is not None and "custody" in entry.detail:
            found = None
    return found


def _same_keys(backup_file: Store, state: TrustState, anchor: Anchor) -> None:
    """Only keys that the token itself remembers as valid may vouch for a file that departs from its anchor.

    Otherwise the holder of a token that was removed since could extend an old copy and have it restored.
    """
    known = backup_file.entry(anchor.sequence)
    if known is not None and known.hash == anchor.hash:
        return  # the file has the anchor's entry, and the chain itself was verified
    if any(token.id not in anchor.audit_keys for token in state.tokens.values()):  # no other keys signed the chain
        raise VaultError(
            "the backup trusts a token that this one does not remember as valid",
            "use a newer backup, or restore with a token that knows it",
        )


def _loss(vault: Location, backup: Unlocked, anchor: Anchor | None) -> Loss:
    newest = backup.file.newest()
    ends = newest.sequence if newest else 0
    seen, departs = 0, False
    if anchor is not None:
        seen, in_backup = anchor.sequence, backup.file.entry(anchor.sequence)
        departs = ends >= seen > 0 and (in_backup is None or in_backup.hash != anchor.hash)
    try:
        present = open_store(vault)
    except VaultError:
        return Loss(ends, seen, None, None, max(seen - ends, 0), departs)
    try:
        last = present.newest()
        present_ends = last.sequence if last else 0
        common = _common(present, backup.file, min(present_ends, ends))
        lost = tuple(_told(backup.over(present), common))
        return Loss(ends, seen, present_ends, common, present_ends - common, departs, lost=lost)
    except VaultError:
        return Loss(ends, seen, None, None, max(seen - ends, 0), departs)
    finally:
        present.close()


def _common(one: Store, other: Store, most: int) -> int:
    """The last entry that two logs share. Two hash chains agree up to some entry, and at none after it."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        mine, theirs = one.entry(middle), other.entry(middle)
        if mine is not None and theirs is not None and mine.hash == theirs.hash:
            low = middle
        else:
            high = middle - 1
    return low


def _told(present: Unlocked, after: int) -> Iterator[tuple[str, str]]:
    """What the present vault's entries after that one tell, as far as they open: it may be damaged."""
    for row in present.file.entries(after):
        try:
            entry = present.log.read_entry(row)
        except VaultError:
            yield "unreadable", ""
        else:
            yield entry.action, entry.subject


def _open_keyset(token: Token, state: TrustState, name: str) -> VaultKeyset:
    try:
        return open_keyset(token, state, state.tokens[name])
    except (KeyError, NotAuthentic) as exc:
        raise VaultError(
            "the token's root KEK does not open this backup: it is from before a re-key",
            "use a backup that was made after it",
        ) from exc
