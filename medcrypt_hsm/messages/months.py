"""The life of a month: opening the next one, which steps every chain and makes every message key of that month.

In: an unlocked vault. Out: new months in one transaction, in which old chain keys go; and whether a month may be read.
Opening one month happens by itself when the clock has reached it; more than one at once is named by a person (``rotate
--to``), because a clock is not believed blindly. Not here: the end of a month's keys (lifecycle/shred.py).
"""

from __future__ import annotations

from typing import NamedTuple

from medcrypt_hsm.errors import AuditBroken, FutureMonth, MonthsBehind, Refused, Shredded, StaleMonth
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import parse_time
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import MONTH_OPEN
from medcrypt_hsm.vault.audit.trust import MonthState
from medcrypt_hsm.vault.change import Change
from medcrypt_hsm.vault.clock import SKEW
from medcrypt_hsm.vault.keyset import CHAIN, MESSAGE, QR
from medcrypt_hsm.vault.store.rows import RecordRow
from medcrypt_hsm.vault.unlocked import Unlocked


class MonthsOpened(NamedTuple):
    """Which months were opened, for how many pairings, and the checkpoint for the officer to keep elsewhere."""

    months: tuple[Month, ...]
    pairings: int
    checkpoint: str


def months_due(unlocked: Unlocked) -> tuple[Month, ...]:
    """From the month after the newest opened one to the clock's; empty when nothing is due."""
    newest, current = unlocked.state.newest_month, unlocked.clock.month()
    return tuple(Month(ordinal) for ordinal in range(newest.ordinal + 1, current.ordinal + 1))


def open_if_due(unlocked: Unlocked) -> MonthsOpened | None:
    """Open the clock's month if it is the next one. Raises MonthsBehind if several are due."""
    due = months_due(unlocked)
    if not due:
        return None
    if len(due) > 1:
        raise MonthsBehind(
            t(
                "this vault's newest month is {newest}, the clock says {clock}",
                newest=unlocked.state.newest_month,
                clock=due[-1],
            ),
            t("if the clock is right, run 'medcrypt rotate --to {month}'", month=due[-1]),
        )
    return open_months(unlocked, due[0])


class _OpenedMeanwhile(Exception):
    """Another process was first: nothing is written, and no entry is made."""


def open_months(unlocked: Unlocked, to: Month) -> MonthsOpened | None:
    """Open every month up to ``to``, which must be the clock's month; None if another process did. Raises Refused."""
    current = unlocked.clock.month()
    if to != current:
        raise Refused(
            t("only the clock's month can be opened, and it says {month}", month=current),
            t("run 'medcrypt rotate --to {month}' if the clock is right; otherwise set the clock", month=current),
        )
    try:
        with unlocked.change(MONTH_OPEN, str(to), named_month=True) as change:
            due = months_due(unlocked)  # looked at again under the write lock
            if not due:
                raise _OpenedMeanwhile
            chains = unlocked.rows.all_records(CHAIN)
            newest = str(unlocked.state.newest_month)
            if stray := next((chain for chain in chains if chain.month != newest), None):
                # Its MAC is right, because it was a row of this vault once. Stepping it would give keys that the
                # patient never has.
                raise AuditBroken(t("row {row} is not of the newest month", row=stray.ref), at=stray.sequence)
            drop_expired_codes(unlocked, change)
            change.put_records([row for chain in chains for row in _step(unlocked, change, chain, due)])
            change.delete_all_records(CHAIN, chains)
            for month in due:
                change.put_trust("month", str(month), MonthState(change.time).value())
            change.detail["months"] = [str(month) for month in due]
            change.detail["pairings"] = len(chains)
    except _OpenedMeanwhile:
        return None
    unlocked.write_anchor()
    return MonthsOpened(due, len(chains), unlocked.log.checkpoint())


def drop_expired_codes(unlocked: Unlocked, change: Change) -> None:
    """A pairing code is the chain key of its month: kept past its expiry, it would undo the ratchet."""
    for row in unlocked.rows.all_sealed(QR):
        if parse_time(unlocked.keyset.open(row)["expires"]) <= unlocked.clock.now():
            change.delete_sealed(QR, row.pairing)


def _step(unlocked: Unlocked, change: Change, chain: RecordRow, due: tuple[Month, ...]) -> list[RecordRow]:
    """One pairing's rows for the months that are due: a message key for each, a chain key for the last."""
    from medcrypt_hsm.vault.ratchet import derive_message_key, step_chain

    keyset, pairing, sequence = unlocked.keyset, chain.pairing, change.sequence
    rows = []
    handle = keyset.chain_key(chain)
    chain_key = handle.step(due[0])
    handle.destroy()
    for month in due:
        if month != due[0]:
            with chain_key as previous:
                chain_key = step_chain(previous, pairing, month)
        with derive_message_key(chain_key, pairing, month) as message_key:
            rows.append(keyset.wrap(MESSAGE, pairing, str(month), sequence, message_key))
    with chain_key:
        rows.append(keyset.wrap(CHAIN, pairing, str(due[-1]), sequence, chain_key))
    return rows


def is_archived(unlocked: Unlocked, month: Month) -> bool:
    """Is it over, with its days of grace?"""
    if month >= unlocked.clock.month():
        return False
    from medcrypt_hsm.vault.policy import in_grace

    return not in_grace(month, unlocked.clock.now(), unlocked.state.policy)


def refuse_shredded(unlocked: Unlocked, month: Month) -> None:
    """Raises Shredded: its keys were destroyed on purpose, and are not derived again."""
    if unlocked.state.is_shredded(month):
        when = unlocked.state.months[month].shredded
        raise Shredded(
            t(
                "the keys of {month} were shredded at {time}: no message of that month can be read any more",
                month=month,
                time=when,
            )
        )


def check_readable(unlocked: Unlocked, month: Month, *, archive: bool, what: str = "message") -> None:
    """The reader's rules for a month (docs/spec/messages.md). Raises StaleMonth or FutureMonth."""
    refuse_shredded(unlocked, month)
    current = unlocked.clock.month()
    if month > current:
        if Month.of(unlocked.clock.now() + SKEW) != month:
            raise FutureMonth(
                t("the {kind} is of {month}, this machine's clock says {clock}", kind=what, month=month, clock=current)
            )
        return
    if not archive and is_archived(unlocked, month):
        raise StaleMonth(t("the {kind} is of {month}, which is archived", kind=what, month=month))
