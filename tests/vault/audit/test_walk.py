"""Following a log as others extend it, up to where the file ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.entries import genesis
from medcrypt_hsm.vault.audit.walk import check_claims, extend_to_newest, guest_may_write
from medcrypt_hsm.vault.store.store import Store
from tests.support.store import open_at, tamper
from tests.support.two_readers_breakglass import Emergency
from tests.support.vault_builder import SoftToken, VaultBuilder


@pytest.fixture
def built() -> VaultBuilder:
    doctor, built = SoftToken("doctor"), VaultBuilder()
    built.open_month("2026-11")
    built.introduce(doctor, doctor)
    for _ in range(4):
        built.sealed(doctor)
    return built


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    with closing(open_at(path)) as file, file.snapshot():
        yield file


def beginning(built: VaultBuilder) -> Chain:
    return Chain(built.vault, 0, genesis(built.vault), {})


def test_it_ends_where_the_file_does_and_leaves_the_chain_that_it_began_with(
    built: VaultBuilder, tmp_path: Path
) -> None:
    chain = beginning(built)
    with opened(built.write(tmp_path / "vault.db")) as file:
        longer = extend_to_newest(file, chain)
    assert (longer.sequence, longer.hash) == (5, built.rows[-1].hash)
    assert chain.sequence == 0


@pytest.mark.parametrize(
    ("statement", "words", "at"),
    [
        ("DELETE FROM entries WHERE sequence = 3", "audit entry 3 is missing", 3),
        ("UPDATE entries SET stored = zeroblob(64) WHERE sequence = 3", "audit entry 3 was altered", 3),
        ("UPDATE entries SET signature = zeroblob(64) WHERE sequence = 5", "the head of audit entry 5", 5),
    ],
)
def test_what_others_cannot_have_written(
    built: VaultBuilder, tmp_path: Path, statement: str, words: str, at: int
) -> None:
    path = tamper(built.write(tmp_path / "vault.db"), statement)
    with opened(path) as file, pytest.raises(AuditBroken, match=words) as caught:
        extend_to_newest(file, beginning(built))
    assert caught.value.at == at


def test_the_newest_head_vouches_for_those_before_it(built: VaultBuilder, tmp_path: Path) -> None:
    path = tamper(built.write(tmp_path / "vault.db"), "UPDATE entries SET signature = zeroblob(64) WHERE sequence = 3")
    with opened(path) as file:
        assert extend_to_newest(file, beginning(built)).sequence == 5


def test_a_log_that_was_cut_off_behind_what_is_known(built: VaultBuilder, tmp_path: Path) -> None:
    with opened(built.write(tmp_path / "vault.db")) as file:
        known = extend_to_newest(file, beginning(built))
    path = tamper(tmp_path / "vault.db", "DELETE FROM entries WHERE sequence = 5")
    with opened(path) as file, pytest.raises(AuditBroken, match="audit entry 5 has vanished"):
        extend_to_newest(file, known)


class TestBreakGlass:
    @pytest.fixture
    def log(self) -> Emergency:
        return Emergency().ready()

    def test_it_is_walked_from_the_beginning_where_the_ceremony_is_further_back(
        self, log: Emergency, tmp_path: Path
    ) -> None:
        with opened(log.write(tmp_path / "before.db")) as file:
            known = extend_to_newest(file, beginning(log))
        anchored = Chain(log.vault, known.sequence, known.hash, known.keys)
        log.used()
        with opened(log.write(tmp_path / "vault.db")) as file:
            longer = extend_to_newest(file, anchored)
        assert longer.guest is not None
        assert longer.guest.id == log.who.id

    def test_a_request_that_was_made_in_another_history(self, log: Emergency, tmp_path: Path) -> None:
        log.asking(hash="00" * 32)
        with opened(log.write(tmp_path / "vault.db")) as file, pytest.raises(AuditBroken, match="another history"):
            extend_to_newest(file, beginning(log))

    def test_one_that_names_a_guests_entry(self, log: Emergency, tmp_path: Path) -> None:
        log.used()
        with opened(log.write(tmp_path / "vault.db")) as file:
            chain = extend_to_newest(file, beginning(log))
            chain.uses.claims.append((chain.sequence, chain.hash))
            with pytest.raises(AuditBroken, match=f"another history than this: entry {chain.sequence}"):
                check_claims(file, chain)


@pytest.mark.parametrize("refused", [ValueError("in another's name"), KeyError("patient"), TypeError("7")])
def test_what_a_guest_may_not_write_names_the_entry(refused: Exception) -> None:
    with pytest.raises(AuditBroken, match="audit entry 9 is of a guest") as caught, guest_may_write(9):
        raise refused
    assert caught.value.at == 9
    assert caught.value.__cause__ is refused
