"""What comes to nothing is entered by its name; and what happens where it cannot be."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import AuditBroken, ClockBehind, NotAuthentic, OnHold, Refused, TokenUnfit, VaultBusy
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.audit.trust import Policy
from medcrypt_hsm.vault.change import Change, enter_failure, failures_recorded, refusals_recorded
from tests.support.practice import Practice, unlocked
from tests.support.store import statements, write_lock

OCTOBER = Month.parse("2026-10")


def newest(vault: Vault) -> tuple[str, str, str]:
    log = unlocked(vault).log
    row = unlocked(vault).file.newest()
    assert row is not None
    entry = log.read_entry(row)
    return entry.action, entry.subject, entry.outcome


@contextmanager
def written_by_another(practice: Practice, vault: Vault) -> Iterator[None]:
    """Nobody else gets the write lock meanwhile, and the vault waits 10 ms for it."""
    file: Any = unlocked(vault).file
    file._busy_seconds = 0.01
    file._db.execute("PRAGMA busy_timeout = 10")
    with write_lock(practice.path):
        yield


@contextmanager
def exchanged(practice: Practice) -> Iterator[None]:
    """The newest entry is another one, for as long."""
    newest = "sequence = (SELECT max(sequence) FROM entries)"
    with statements(practice.path) as run:
        (was,) = run(f"SELECT hash FROM entries WHERE {newest}").fetchone()  # type: ignore[attr-defined]
        run(f"UPDATE entries SET hash = ? WHERE {newest}", (bytes(32),))
        yield
        run(f"UPDATE entries SET hash = ? WHERE {newest}", (was,))


class TestRefusals:
    def test_it_is_entered_by_its_name(self, practice: Practice) -> None:
        with practice.open() as vault:
            with pytest.raises(OnHold), refusals_recorded(unlocked(vault), "month.shred", "2026-10"):
                raise OnHold("2026-10 is on hold")
            assert newest(vault) == ("month.shred", "2026-10", "on-hold")
            before = unlocked(vault).log.sequence
            with pytest.raises(TokenUnfit), refusals_recorded(unlocked(vault), "month.shred", "2026-10"):
                raise TokenUnfit("no refusal")
            assert unlocked(vault).log.sequence == before
            vault.log.verify()

    def test_nobody_reads_what_is_sealed_unrecorded(self, practice: Practice) -> None:
        """A hold's reason is in its refusal. While no entry can be written, the refusal is not told either."""
        with practice.open() as vault:
            vault.holds.add("expediente 12", month=Month.parse("2026-11"))
        practice.clock.set("2026-12-20")
        with practice.open() as vault:
            vault.months.open()
            with written_by_another(practice, vault), pytest.raises(VaultBusy, match="busy"):
                vault.months.shred([Month.parse("2026-11")])
            with pytest.raises(OnHold, match="expediente 12"):
                vault.months.shred([Month.parse("2026-11")])
            assert newest(vault) == ("month.shred", "2026-11", "on-hold")

    def test_a_clock_in_doubt_keeps_nobody_from_hearing_why(self, practice: Practice) -> None:
        with practice.open() as vault:
            before = unlocked(vault).log.sequence
            practice.clock.forward(days=-3)
            with pytest.raises(ClockBehind):
                unlocked(vault).record("x")
            with pytest.raises(Refused, match="why"), refusals_recorded(unlocked(vault), "token.remove", "doctor"):
                raise Refused("why")
            assert unlocked(vault).log.sequence == before


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "name"),
        [(TokenUnfit("why"), "token-unfit"), (OSError(errno.ENOSPC, "why"), "failed"), (Refused("why"), "refused")],
    )
    def test_it_is_entered_by_its_name(self, practice: Practice, failure: Exception, name: str) -> None:
        with practice.open() as vault:
            with pytest.raises(type(failure), match="why"), failures_recorded(unlocked(vault), "vault.backup", "b.db"):
                raise failure
            assert newest(vault) == ("vault.backup", "b.db", name)

    def test_it_matters_more_than_what_keeps_it_from_being_entered(self, practice: Practice) -> None:
        """A backup that failed on a full disk used to say that the vault was busy, if it was by then."""
        with practice.open() as vault:
            with (
                written_by_another(practice, vault),
                pytest.raises(OSError, match="no space"),
                failures_recorded(unlocked(vault), "vault.backup", "b.db"),
            ):
                raise OSError(errno.ENOSPC, "no space")
            enter_failure(unlocked(vault), "token.add", "spare", TokenUnfit("why"))
            assert newest(vault) == ("token.add", "spare", "token-unfit")

    def test_a_broken_log_matters_more(self, practice: Practice) -> None:
        """A failed add used to hide it."""
        with practice.open() as vault:
            with (
                exchanged(practice),
                pytest.raises(AuditBroken, match="exchanged"),
                failures_recorded(unlocked(vault), "token.add", "spare"),
            ):
                raise TokenUnfit("why")
            vault.log.verify()

    def test_what_cannot_be_taken_back_is_said(self, practice: Practice) -> None:
        policy = Policy(grace_days=3)

        def undo(change: Change) -> None:
            change.put_trust("policy", "", policy.value())

        with practice.open() as vault:
            with (
                written_by_another(practice, vault),
                pytest.raises(VaultBusy),
                failures_recorded(unlocked(vault), "breakglass.drill", "ana", undo=undo),
            ):
                raise NotAuthentic("why")
            assert vault.policy != policy
            with (
                pytest.raises(NotAuthentic, match="why"),
                failures_recorded(unlocked(vault), "breakglass.drill", "ana", undo=undo),
            ):
                raise NotAuthentic("why")
            assert vault.policy == policy
            assert newest(vault) == ("breakglass.drill", "ana", "not-authentic")
