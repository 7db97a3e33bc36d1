"""How a vault stands by what its file says: without a token, and so not verified."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken, VaultMissing, VaultUnfinished
from medcrypt_hsm.vault.inspection import Status, status_of_file, verify_file
from tests.support.store import tamper
from tests.support.two_readers_breakglass import Emergency
from tests.support.vault_builder import SoftToken, VaultBuilder

DOCTOR = SoftToken("doctor")
BG8 = "BG-8: break-glass was used for one patient"


def status(built: VaultBuilder, directory: Path, now: str = "2026-11-22") -> Status:
    path = built.write(directory / "vault.db")
    path.chmod(0o600)
    directory.chmod(0o700)
    return status_of_file(path, lambda: datetime.fromisoformat(now).replace(tzinfo=UTC))


@pytest.fixture
def built() -> VaultBuilder:
    built = VaultBuilder()
    for month in ("2026-08", "2026-09", "2026-10", "2026-11"):
        built.open_month(month)
    built.introduce(DOCTOR, DOCTOR)
    built.add_keyset(DOCTOR)
    built.sealed(DOCTOR)
    return built


def test_what_is_there(built: VaultBuilder, tmp_path: Path) -> None:
    found = status(built, tmp_path)
    assert (found.verified, found.vault_id, found.entries) == (False, built.vault.hex(), 2)
    assert [token.name for token in found.tokens] == ["doctor"]
    assert (found.anchor, found.in_use, found.breakglass, found.problems) == (None, "", None, ())


@pytest.mark.parametrize(
    ("now", "october", "due"),
    [("2026-11-07", "grace", []), ("2026-11-22", "archived", []), ("2026-12-22", "archived", ["2026-12"])],
)
def test_the_life_of_its_months(built: VaultBuilder, tmp_path: Path, now: str, october: str, due: list[str]) -> None:
    built.change_row("month", "2026-08", shredded="2026-11-01T09:00:00Z")
    found = status(built, tmp_path, now)
    months = dict(found.months)
    assert (months["2026-08"], months["2026-09"], months["2026-10"]) == ("shredded", "archived", october)
    assert [month for month, state in found.months if state == "due"] == due
    assert found.problems == tuple(f"month {m} is due; it opens by itself at the next message or pairing" for m in due)


def test_what_is_past_retention_and_what_is_due_are_problems(built: VaultBuilder, tmp_path: Path) -> None:
    built.set_trust("policy", "", {"grace_days": 7, "require_attestation": "none", "retain_months": 1})
    assert status(built, tmp_path, "2027-01-09").problems == (
        "months 2026-12 to 2027-01 are due: run 'medcrypt rotate --to 2027-01'",
        "past retention: 2026-08 to 2026-11 (4 months): run 'medcrypt shred --due'",
    )


def test_a_file_that_others_can_read(built: VaultBuilder, tmp_path: Path) -> None:
    path = built.write(tmp_path / "vault.db")
    path.chmod(0o640)
    tmp_path.chmod(0o755)
    found = status_of_file(path, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    assert found.problems == (
        f"the vault file can be read by others: run 'chmod 600 {path}'",
        f"the vault's directory can be entered by others: run 'chmod 700 {tmp_path}'",
    )


def test_break_glass_is_red_until_it_is_made_anew(tmp_path: Path) -> None:
    """Also where no registered token has written since, so that the rows do not tell of it yet."""
    log = Emergency().ready().used()
    found = status(log, tmp_path)
    assert [use.scope for use in found.uses] == ["patient"]
    assert [problem for problem in found.problems if BG8 in problem]
    log.sealed(log.doctor)
    assert [problem for problem in status(log, tmp_path).problems if BG8 in problem]
    log.rotated()
    found = status(log, tmp_path)
    assert not [problem for problem in found.problems if "BG-8" in problem]
    assert len(found.old_shares) == len([problem for problem in found.problems if "the share of" in problem]) == 3


def test_public_keys_alone_verify_a_log(built: VaultBuilder, tmp_path: Path) -> None:
    path = built.write(tmp_path / "vault.db")
    assert verify_file(path, [DOCTOR.spki]).sequence == 2
    tamper(path, "UPDATE entries SET signature = zeroblob(64) WHERE sequence = 2")
    with pytest.raises(AuditBroken, match="the head of audit entry 2 does not verify"):
        verify_file(path, [DOCTOR.spki])


def test_where_there_is_none_or_a_half(built: VaultBuilder, tmp_path: Path) -> None:
    with pytest.raises(VaultMissing):
        status_of_file(tmp_path / "none.db")
    built.trust = {}
    built.set_trust("vault", "", {"id": built.vault.hex(), "unfinished": "pkcs11:token=doctor"})
    with pytest.raises(VaultUnfinished, match="was interrupted"):
        status(built, tmp_path)
