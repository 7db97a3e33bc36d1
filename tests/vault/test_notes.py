"""What fails before an unlock: noted beside the vault, entered into the log exactly once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import ClockBehind, WrongPin
from medcrypt_hsm.vault import notes
from medcrypt_hsm.vault.store.rows import Location
from tests.support.practice import Practice
from tests.support.softhsm import WRONG_PIN

LINE = b'{"time":"2026-11-22T12:00:00Z","what":"pin-wrong"}\n'


def notes_file(practice: Practice) -> Path:
    return practice.path.with_name("vault.db-notes")


def leftover_of(practice: Practice, entry_hash: str) -> Path:
    return practice.path.with_name(f"vault.db-notes-{entry_hash}")


def beside(practice: Practice) -> list[str]:
    return sorted(path.name for path in practice.path.parent.glob("*notes*"))


def entered(vault: Vault) -> list[object]:
    return [note for _, entry in vault.log.entries() if entry.action == "notes" for note in entry.detail["notes"]]


def test_a_wrong_pin_is_noted_and_entered_at_the_next_unlock(practice: Practice) -> None:
    with pytest.raises(WrongPin):
        Vault.open(practice.path, pin=lambda info: WRONG_PIN, clock=practice.clock)
    assert beside(practice) == ["vault.db-notes"]
    assert notes_file(practice).stat().st_mode & 0o777 == 0o600
    assert WRONG_PIN not in notes_file(practice).read_text()
    with practice.open() as vault:
        (note,) = entered(vault)
        assert (note["what"], note["token"]) == ("pin-wrong", "doctor")  # type: ignore[index]
        vault.log.verify()
    assert beside(practice) == []


def test_entered_once(practice: Practice) -> None:
    notes_file(practice).write_bytes(LINE * 3)
    for _ in range(2):
        with practice.open() as vault:
            assert len(entered(vault)) == 3


def test_a_kill_before_the_commit_loses_nothing(practice: Practice) -> None:
    """The file has its new name, but the entry of that name never came to be."""
    leftover_of(practice, "ab" * 32).write_bytes(LINE)
    with practice.open() as vault:
        assert len(entered(vault)) == 1
    assert beside(practice) == []


def test_a_kill_behind_the_commit_doubles_nothing(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    notes_file(practice).write_bytes(LINE)

    def killed(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        practice.open()
    monkeypatch.undo()
    (leftover,) = beside(practice)
    assert len(leftover) == len("vault.db-notes-") + 64
    with practice.open() as vault:
        assert len(entered(vault)) == 1
    assert beside(practice) == []


def test_new_notes_beside_a_leftover(practice: Practice) -> None:
    leftover_of(practice, "ab" * 32).write_bytes(LINE)
    notes_file(practice).write_bytes(LINE * 2)
    with practice.open() as vault:
        assert len(entered(vault)) == 3
        vault.log.verify()
    assert beside(practice) == []


def test_more_than_can_be_entered(practice: Practice) -> None:
    notes_file(practice).write_bytes(LINE * (notes.MOST_NOTES + 500))
    with practice.open() as vault:
        found = entered(vault)
        assert len(found) == notes.MOST_NOTES + 1
        assert "dropped" in found[-1]["what"]  # type: ignore[index]
        vault.log.verify()


@pytest.mark.parametrize("line", [
    b"\xff\xfe\x00", b"[1, 2]", b"null", b"", b"[" * 5000, b"{" * 5000, b'{"what": "\\ud800"}', b'{"what": 1e999}',
    b'{"what": NaN}', b'{"what": 0.1}', b'{"a": ' * 100 + b"1" + b"}" * 100, b"9" * 20_000, b"x" * 10**6,
])  # fmt: skip
def test_what_somebody_wrote_there_stops_nobody(practice: Practice, line: bytes) -> None:
    notes_file(practice).write_bytes(line + b"\n" + LINE)
    with practice.open() as vault:
        assert json.loads(LINE) in entered(vault)
        vault.log.verify()
    assert beside(practice) == []


def test_a_link_in_their_place_is_not_followed(practice: Practice, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    notes_file(practice).symlink_to(elsewhere)
    with pytest.raises(WrongPin):
        Vault.open(practice.path, pin=lambda info: WRONG_PIN, clock=practice.clock)
    assert elsewhere.read_bytes() == b"not ours"


def test_not_entered_by_a_clock_that_is_behind(practice: Practice) -> None:
    notes_file(practice).write_bytes(LINE)
    practice.clock.forward(days=-2)
    with practice.open() as vault:
        assert "clock" in vault.status().problems[0]
        with pytest.raises(ClockBehind):
            vault.patients.list()
    practice.clock.forward(days=2)
    with practice.open() as vault:  # the token was given back, and the notes are there still
        assert len(entered(vault)) == 1


def test_none_beside_no_vault(tmp_path: Path) -> None:
    notes.write(Location.parse(tmp_path / "vault.db"), "pin-wrong", "2026-11-22T12:00:00Z")
    assert list(tmp_path.iterdir()) == []
