"""``Ledger``: what the log says must be in the file, and whether it is there.

In: every entry, opened, in order; then the file. Out: how many rows were compared, or AuditBroken naming the entry or
row. What is expected lies in a ``Scratch``, so that memory does not grow with the log. A rule by which an entry makes
rows come or go is a branch of ``Ledger._apply``. Not here: chain and heads (audit/chain.py), and opening entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from medcrypt_hsm.errors import AuditBroken, VaultDamaged
from medcrypt_hsm.notation import octets
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import (
    DONE,
    INTENDED,
    MESSAGE_DECRYPT,
    MESSAGE_ENCRYPT,
    MESSAGE_FAILED,
    VAULT_REKEY,
)
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.store.rows import RecordRow
from medcrypt_hsm.vault.store.scratch import Scratch
from medcrypt_hsm.vault.store.store import Store
from medcrypt_hsm.vault.unlocked import Unlocked

_SEEN_ACTIONS = (MESSAGE_ENCRYPT, MESSAGE_DECRYPT)
_DID_WRITE = (DONE, INTENDED)
NEW, CONFLICT = "", " conflict"


class Ledger:
    """Each row's newest writer, and every seen text. Use as a context manager."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._newest_time = ""

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self._scratch.close()

    def take(self, sequence: int, entry: Entry) -> None:
        """The next entry. Raises AuditBroken."""
        try:
            if entry.time < self._newest_time:
                raise AuditBroken(t("audit entry {entry} is older than the one before it", entry=sequence), at=sequence)
            self._newest_time = entry.time
            self._apply(sequence, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise AuditBroken(
                t("audit entry {entry} tells of its rows in no known way", entry=sequence), at=sequence
            ) from exc

    def _apply(self, sequence: int, entry: Entry) -> None:
        self._scratch.drop_rows(map(_text, entry.detail.get("deletes", ())))
        self._scratch.put_rows(map(_text, entry.detail.get("writes", ())), sequence)
        if entry.action in _SEEN_ACTIONS and entry.outcome in _DID_WRITE:  # a refusal lists no rows: it wrote none
            for pairing, month, rows in _seen_rows(entry.detail["messages"]):
                taken = ((nonce, digest) for nonce, digest, was in rows if was != CONFLICT)
                self._scratch.put_seen(pairing, month, taken)
        elif entry.action == MESSAGE_FAILED:
            for pairing, month, rows in _seen_rows(entry.detail["messages"]):
                forged = ((nonce, digest) for nonce, digest, was in rows if was == NEW)
                self._scratch.drop_seen(pairing, month, forged)
        elif entry.action == VAULT_REKEY and entry.outcome == DONE:
            for month in entry.detail["shredded"]:
                self.drop_month(_text(month))
            for pairing in entry.detail["erased"]:
                self.drop_pairing(bytes.fromhex(pairing))

    def drop_pairing(self, pairing: bytes) -> None:
        """No text of this pairing is to be among the seen ones any more."""
        self._scratch.drop_seen_of_pairing(pairing.hex())

    def drop_month(self, month: str) -> None:
        """No text of this month (``YYYY-MM``; "" is where version 1 texts stand) is to be among the seen ones."""
        self._scratch.drop_seen_of_month(month)

    def compare(self, unlocked: Unlocked) -> int:
        """Every row must be the one that the log says, and open. Returns how many there are. Can be called only once.

        Raises AuditBroken.
        """
        with closing(self._scratch.rows()) as expected:
            compared = self._compare_written(unlocked, expected)
        return compared + self._compare_seen(unlocked.file)

    def _compare_written(self, unlocked: Unlocked, expected: Iterator[tuple[str, int]]) -> int:
        """Both lists are walked side by side: searching for each row would cost half as much as its MAC.

        The file's order is that of the references, because in every row that this program writes the pairings of a
        purpose are equally long, and no purpose begins with another. A row of which that is not true is refused.
        """
        compared = 0
        for row in unlocked.file.written():
            compared += 1
            ref, written = next(expected, (None, 0))
            if ref != row.ref:
                if not self._scratch.has_row(row.ref):
                    raise AuditBroken(t("row {row} is in the file, but the log does not know it", row=row.ref))
                if ref is None:
                    raise AuditBroken(t("row {row} is in the file out of its order", row=row.ref))
                raise _missing(ref, written)
            if written != row.sequence:
                raise AuditBroken(
                    t(
                        "row {row} is of audit entry {entry}, but entry {written} wrote it again",
                        row=ref,
                        entry=row.sequence,
                        written=written,
                    ),
                    at=written,
                )
            try:
                if isinstance(row, RecordRow):
                    unlocked.keyset.check_record(row)
                else:
                    unlocked.keyset.open(row)
            except (VaultDamaged, ValueError) as exc:
                raise AuditBroken(t("row {row} was altered", row=ref), at=written) from exc
        for ref, written in expected:
            raise _missing(ref, written)
        return compared

    def _compare_seen(self, file: Store) -> int:
        compared = 0
        for pairing, month, nonce, digest in file.all_seen():
            compared += 1
            if self._scratch.take_seen(pairing.hex(), month, nonce) != digest:
                raise AuditBroken(
                    t("a seen message of pairing {pairing} is not the one that the log knows", pairing=pairing.hex())
                )
        if missing := self._scratch.count_seen():
            raise AuditBroken(t("{count} seen messages that the log knows are missing from the file", count=missing))
        return compared


_Seen = list[tuple[bytes, bytes, str]]  # nonce, digest, and what was there before


def _missing(ref: str, written: int) -> AuditBroken:
    return AuditBroken(t("row {row}, written by audit entry {entry}, is missing", row=ref, entry=written), at=written)


def _seen_rows(groups: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, _Seen]]:
    for group in groups:
        yield _text(group["pairing"]), _text(group["month"]), [_seen_row(_text(row)) for _, _, row in group["messages"]]


def _seen_row(row: str) -> tuple[bytes, bytes, str]:
    raw = octets(row[:64], 32)
    return raw[:16], raw[16:], row[64:]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value
