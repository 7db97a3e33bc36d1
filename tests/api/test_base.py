"""What every method of the library has in common: turns, a closed vault, another's re-key, the anchor, months."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from medcrypt_hsm import Month, MonthsOpened, Vault
from medcrypt_hsm.errors import VaultBusy, VaultDamaged
from tests.support.practice import Practice, unlocked

DECEMBER = Month.parse("2026-12")


class TestMonthsThatOpen:
    """A month opens in whatever call comes first, and its checkpoint is for the officer: nobody may miss it."""

    def test_another_threads_call_takes_it_from_nobody(self, practice: Practice) -> None:
        """Two threads: one opens the month, and the other works in the moment between that call and its caller."""
        told: dict[int, list[MonthsOpened]] = {}

        def keep(opened: MonthsOpened) -> None:
            told.setdefault(threading.get_ident(), []).append(opened)

        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
        vault = Vault.open(practice.path, pin=practice.pin, clock=practice.clock, on_month_opened=keep)
        with vault, ThreadPoolExecutor(1) as other, ThreadPoolExecutor(1) as opener:
            practice.clock.set("2026-12-02")
            who = opener.submit(threading.get_ident).result()
            opener.submit(vault.encrypt, "EXP-1", "hola").result()
            other.submit(vault.patients.list).result()
            other.submit(vault.encrypt, "EXP-1", "también").result()
        assert {thread: [opened.months for opened in all_] for thread, all_ in told.items()} == {who: [(DECEMBER,)]}
        assert told[who][0].checkpoint.startswith("medcrypt/")

    def test_many_threads_at_once_hear_of_it_once(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            practice.clock.set("2026-12-02")
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda number: vault.encrypt("EXP-1", str(number)), range(12)))
            assert [opened.months for opened in practice.months_opened] == [(DECEMBER,)]
            vault.log.verify()

    @pytest.mark.parametrize(
        "act",
        [
            lambda vault, text: vault.encrypt("EXP-1", "x"),
            lambda vault, text: vault.decrypt(text),
            lambda vault, text: vault.patients.add("EXP-2"),
            lambda vault, text: vault.patients.repair("EXP-1"),
        ],
        ids=["encrypt", "decrypt", "add", "repair"],
    )
    def test_it_is_told_before_anything_else_is_done(
        self, practice: Practice, act: Callable[[Vault, str], object]
    ) -> None:
        """A callback that fails stops the call, and no result is lost: there is none yet. The month is open then."""

        def full(opened: MonthsOpened) -> None:
            raise OSError(28, "No space left on device")

        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")
        practice.clock.set("2026-12-02")
        vault = Vault.open(practice.path, pin=practice.pin, clock=practice.clock, on_month_opened=full)
        with vault:
            before = [entry.action for _, entry in vault.log.entries()]
            with pytest.raises(OSError, match="No space"):
                act(vault, text)
            after = [entry.action for _, entry in vault.log.entries()]
            assert after == [*before, "month.open", "audit.show"]
            assert vault.month == DECEMBER
            assert vault.log.checkpoint().startswith("medcrypt/")  # another one, of a newer head
            act(vault, text)
            vault.log.verify()

    def test_it_is_told_though_the_call_fails_afterwards(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.clock.set("2026-12-02")
            with pytest.raises(Exception, match="nobody"):
                vault.encrypt("nobody", "x")
            assert [opened.months for opened in practice.months_opened] == [(DECEMBER,)]

    def test_who_is_told_may_use_the_vault(self, practice: Practice) -> None:
        notes: list[str] = []
        vault = Vault.open(
            practice.path,
            pin=practice.pin,
            clock=practice.clock,
            on_month_opened=lambda opened: notes.append(vault.log.checkpoint()),
        )
        with vault:
            practice.pair(vault, "EXP-1")
            practice.clock.set("2026-12-02")
            assert vault.encrypt("EXP-1", "x")
        assert len(notes) == 1

    def test_opening_it_on_purpose_returns_it_and_tells_nobody(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.clock.set("2026-12-02")
            opened = vault.months.open()
            assert opened is not None
            assert opened.months == (DECEMBER,)
            assert practice.months_opened == []
            assert vault.months.open() is None

    def test_nobody_needs_to_be_told(self, practice: Practice) -> None:
        practice.clock.set("2026-12-02")
        with Vault.open(practice.path, pin=practice.pin, clock=practice.clock) as vault:
            vault.patients.add("EXP-1")
            assert vault.month == DECEMBER


class TestWorking:
    def test_every_part_of_a_closed_vault_says_that_it_is_locked(self, practice: Practice) -> None:
        vault = practice.open()
        log, patients = vault.log, vault.patients
        vault.close()
        uses: tuple[Callable[[], object], ...] = (
            log.checkpoint,
            patients.list,
            vault.months.due,
            vault.holds.list,
            vault.tokens.evidence,
            lambda: vault.custodians.drill([]),
        )
        for use in uses:
            with pytest.raises(RuntimeError, match="locked"):
                use()

    def test_what_looks_damaged_after_anothers_rekey_is_not(self, practice: Practice) -> None:
        with practice.open() as vault:
            shared = vault._vault
            with pytest.raises(VaultDamaged), shared.working():
                raise VaultDamaged("a row is of nobody")
            practice.clock.set("2027-04-02")
            practice.elsewhere(
                "from medcrypt_hsm import Month\n"
                "vault.months.open(Month.parse('2027-04'))\n"
                "vault.set_policy(retain_months=1)\n"
                "vault.months.shred([Month.parse('2026-11')])"
            )
            with pytest.raises(VaultBusy, match="re-keyed meanwhile") as caught, shared.working():
                raise VaultDamaged("a row is of nobody")
            assert isinstance(caught.value.__cause__, VaultDamaged)

    def test_the_anchor_follows_where_something_may_have_been_written(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.log.anchor()
            vault.patients.add("EXP-1")
            at = vault.status().anchor
            practice.clock.forward(hours=25)
            vault.log.verify()
            vault.status()
            assert unlocked(vault).anchor_is_due()
            assert vault.status().anchor == at, "what only looks leaves the token alone"
            vault.patients.list()
            assert not unlocked(vault).anchor_is_due()
            assert vault.status().anchor == vault.status().entries

    def test_what_it_does_not_know_is_refused(self, practice: Practice) -> None:
        with pytest.raises(TypeError, match="last_try"):
            Vault.open(practice.path, pin=practice.pin, last_try=True)  # type: ignore[call-arg]
