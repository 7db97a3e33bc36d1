"""Following a log as others extend it, from what is verified to its newest entry.

In: a vault file and a ``Chain``. Out: another that ends where the file does, or AuditBroken. Not here: where a walk
begins (vault/unlock.py, verify.py), and what an entry changes (chain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medcrypt_hsm.errors import AuditBroken, NotAuthentic
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.chain_uses import NeedsWholeLog
from medcrypt_hsm.vault.audit.entries import Entry, genesis
from medcrypt_hsm.vault.store.rows import EntryRow
from medcrypt_hsm.vault.store.store import Store

if TYPE_CHECKING:
    from medcrypt_hsm.vault.audit.consent import GuestRun, IsOf


def extend_to_newest(file: Store, chain: Chain) -> Chain:
    """``chain`` with what others appended; the newest head must verify, and it vouches for those before it.

    Where break-glass was used, the log is walked from its beginning: who may approve it depends on an earlier ceremony.
    Raises AuditBroken.
    """
    longer = chain.copy()
    try:
        _extend(file, longer)
    except NeedsWholeLog:
        longer = _walk_whole(file, chain)
        _extend(file, longer)
    check_claims(file, longer)
    return longer


def check_claims(file: Store, chain: Chain) -> None:
    """Every request for break-glass was made in this file's history, at a token's entry. Raises AuditBroken."""
    tokens = {*chain.keys, *chain.signers.retired}
    for sequence, hash_ in chain.uses.claims:
        row = file.entry(sequence)
        if row is None or row.hash != hash_ or row.signer not in tokens:
            raise AuditBroken(
                t("break-glass was asked for in another history than this: entry {entry}", entry=sequence), at=sequence
            )


def _extend(file: Store, chain: Chain) -> None:
    newest = file.newest()
    if newest is None or newest.sequence < chain.sequence:
        raise AuditBroken(t("audit entry {entry} has vanished", entry=chain.sequence), at=chain.sequence)
    for row in file.entries(after=chain.sequence):
        chain.extend(row, check_head=row.sequence == newest.sequence)
    if chain.sequence != newest.sequence:
        raise AuditBroken(t("audit entry {entry} is missing", entry=chain.sequence + 1), at=chain.sequence + 1)


def _walk_whole(file: Store, known: Chain) -> Chain:
    """The chain where ``known`` stands, from the log's own beginning: the hash that is known vouches for all of it."""
    chain = Chain(known.vault_id, 0, genesis(known.vault_id), {})
    for row in file.entries():
        if row.sequence > known.sequence:
            break
        chain.extend(row, check_head=False)
    if (chain.sequence, chain.hash) != (known.sequence, known.hash):
        raise AuditBroken(
            t("audit entry {entry} is not what the log before it leads to", entry=known.sequence), at=known.sequence
        )
    return chain


@contextmanager
def guest_may_write(sequence: int) -> Iterator[None]:
    """What ``follow_guest`` refuses in this entry, as AuditBroken that names it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, NotAuthentic) as exc:
        raise AuditBroken(
            t("audit entry {entry} is of a guest, who may not write it: {reason}", entry=sequence, reason=exc),
            at=sequence,
        ) from exc


def check_guests(file: Store, chain: Chain, read_entry: Callable[[EntryRow], Entry], is_of: IsOf) -> None:
    """What a guest wrote at the chain's end is read before a registered token vouches for it. Raises AuditBroken."""
    settled, _ = chain.settled
    if settled == chain.sequence:
        return
    from medcrypt_hsm.vault.audit.consent import follow_guest  # slow, and needed only where break-glass was used

    run: GuestRun | None = None
    time = ""
    for row in file.entries(after=settled - 1):
        entry = read_entry(row)
        with guest_may_write(row.sequence):
            if entry.time < time:
                raise ValueError("older than the entry before it")
            run = follow_guest(run, row.sequence, entry, is_of, guest=row.sequence > settled)
        time = entry.time
