"""``Rekeys``: what the log told of re-keys and of tokens that were synced (docs/spec/rekey.md, "Entries in the clear").

In: ``vault.rekey`` and ``vault.sync`` entries in their order, with the signers and the uses of break-glass that they
change. Out: the newest generation and log key, which months and pairings are gone, or ValueError and its like for a
re-key that cannot be. Not here: whether the rows of the file fit (verify.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from typing import Any

from medcrypt_hsm.vault.audit.actions import DONE, INTENDED, REASONS, SYNCING, VAULT_REKEY, VAULT_SYNC
from medcrypt_hsm.vault.audit.chain_signers import NewKek, Rekeyed, Signers
from medcrypt_hsm.vault.audit.chain_uses import Uses
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.fields import HEX, number, only, refs, texts, token_ids
from medcrypt_hsm.vault.store.rows import EntryRow

_MONTH = re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])", re.ASCII)


class Rekeys:
    """``generation`` and ``log_key`` are the newest; None where the walk began after the entries that told of them.

    ``done`` are the re-keys by their entry; ``shredded`` by month and ``erased`` by pairing say which one did it.
    """

    def __init__(self, *, whole: bool) -> None:
        """``whole``: the walk begins at the log's own beginning."""
        self.generation = 1 if whole else None
        self.log_key = 1 if whole else None
        self.done: dict[int, Rekeyed] = {}
        self.shredded: dict[str, Rekeyed] = {}
        self.erased: dict[str, Rekeyed] = {}
        self._begun: tuple[str, int, str] | None = None  # action, generation, reason of one that has not ended
        self._knows_begun = whole

    def copy(self) -> Rekeys:
        other = copy(self)
        other.done, other.shredded, other.erased = dict(self.done), dict(self.shredded), dict(self.erased)
        return other

    def take(self, entry: Entry, row: EntryRow, signers: Signers, uses: Uses) -> None:
        """The next ``vault.rekey`` or ``vault.sync``. Raises ValueError and its like for what cannot be."""
        detail, action = entry.detail, entry.action
        generation = number(detail["generation"])
        if self.generation is not None and generation != self.generation + (action == VAULT_REKEY):
            raise ValueError("its generation does not follow")
        if entry.outcome == INTENDED:
            self._begin(action, generation, detail, uses)
            return
        reason = self._end(action, generation)
        if entry.outcome != DONE:
            only(detail, "generation")
            return
        for name, told in detail["keks"].items():
            only(told, "attestation", "generation", "kek")
            signers.take_kek(name, NewKek(told["attestation"], number(told["generation"]), told["kek"]), generation)
        if action == VAULT_SYNC:
            only(detail, "generation", "keks")
        else:
            optional = ("custody", "writes", "deletes")
            only(detail, "generation", "keks", "log_key", "retired", "shredded", "erased", optional=optional)
            rekeyed = Rekeyed(row.sequence, entry.time, generation)
            uses.take_rekey(reason, detail, row, rekeyed, signers.keys)
            self._take_done(detail, rekeyed)
            self._take_retired(detail, row, rekeyed, signers, uses)
            self.done[rekeyed.entry] = rekeyed
            self.generation = generation

    def _begin(self, action: str, generation: int, detail: Mapping[str, Any], uses: Uses) -> None:
        if self._begun is not None:
            raise ValueError("another one has not ended")
        if detail["reason"] not in (REASONS if action == VAULT_REKEY else (SYNCING,)):
            raise ValueError("no known reason")
        only(detail, "generation", "reason")
        uses.check_reason(detail["reason"])
        self._begun, self._knows_begun = (action, generation, detail["reason"]), True

    def _end(self, action: str, generation: int) -> str | None:
        """The reason of the one that ends; None where its intent is further back."""
        if self._knows_begun and (self._begun is None or self._begun[:2] != (action, generation)):
            raise ValueError("it was not intended")
        reason = None if self._begun is None else self._begun[2]
        self._begun, self._knows_begun = None, True
        return reason

    def _take_done(self, detail: Mapping[str, Any], rekeyed: Rekeyed) -> None:
        for member in {"writes", "deletes"} & set(detail):
            refs(detail[member])
        log_key = number(detail["log_key"])
        if self.log_key is not None and log_key != self.log_key + 1:
            raise ValueError("its log key does not follow")
        self.log_key = log_key
        pairings = texts(detail["erased"], HEX)
        if not all(len(pairing) == 16 for pairing in pairings):
            raise ValueError("not a pairing")
        self.erased |= dict.fromkeys(pairings, rekeyed)
        months = texts(detail["shredded"], _MONTH)
        if self.shredded.keys() & set(months):
            raise ValueError("a month is shredded twice")
        self.shredded |= dict.fromkeys(months, rekeyed)

    @staticmethod
    def _take_retired(detail: Mapping[str, Any], row: EntryRow, rekeyed: Rekeyed, signers: Signers, uses: Uses) -> None:
        for retired in token_ids(detail["retired"]):
            if retired == row.signer:
                raise ValueError("a token retires itself")
            signers.retire(retired, rekeyed)
            uses.retire(retired)
