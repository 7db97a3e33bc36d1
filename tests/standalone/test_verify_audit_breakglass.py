"""scripts/standalone/verify_audit.py on break-glass: what it reports, and certificates of the re-keys that belong to
it.

The logs are those of tests/support/two_readers_breakglass.py. Which logs it accepts: tests/two_readers/test_uses.py and
tests/two_readers/test_custody.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.audited_practice import run
from tests.support.two_readers_breakglass import Emergency
from tests.support.vault_builder import Row, SoftToken, sha256


@pytest.fixture
def log() -> Emergency:
    return Emergency().ready()


def verify(log: Emergency, directory: Path, *more: str) -> tuple[int, str]:
    path, key = log.write(directory / "log.db"), directory / "doctor.pem"
    key.write_bytes(log.doctor.pem())
    return run(str(path), "--public-key", str(key), *more)


def words(log: Emergency, directory: Path) -> str:
    code, said = verify(log, directory)
    assert code == 0, said
    return said


def found(log: Emergency, directory: Path) -> Any:
    code, said = verify(log, directory, "--json")
    assert code == 0, said
    return json.loads(said)


class TestReport:
    def test_nothing_is_said_where_there_is_none(self, log: Emergency, tmp_path: Path) -> None:
        log = Emergency().begin()
        log.sealed(log.doctor)
        assert "break-glass" not in words(log, tmp_path)
        told = found(log, tmp_path)
        assert (told["break_glass"], told["uses"], told["old_shares_not_destroyed"]) == (None, [], [])

    def test_who_the_custodians_are(self, log: Emergency, tmp_path: Path) -> None:
        log.custodian_row(drilled="2026-11-06T08:00:00Z")
        ceremony, key = log.custody["ceremony"], log.custody["key"]
        said = words(log, tmp_path)
        assert (
            f"break-glass: any 2 of 3 custodians; ceremony {ceremony}, entry 5, {log.rows[4].time}; key {key}" in said
        )
        ben = log.custodians["ben"].id.hex()
        on = f"custodian 'ben', share 2 on 'soft' 'C2', token-claimed, approval key {ben}"
        assert f"{on}, drilled 2026-11-06T08:00:00Z" in said
        assert said.count("never drilled") == 2
        told = found(log, tmp_path)["break_glass"]
        assert told | {"custodians": None} == {
            "ceremony": ceremony, "custodians": None, "entry": 5, "key": key, "threshold": 2, "time": log.rows[4].time
        }  # fmt: skip
        assert told["custodians"][1] == {
            "approval_key": ben, "attestation": "token-claimed", "drilled": "2026-11-06T08:00:00Z", "model": "soft",
            "name": "ben", "serial": "C2", "x": 2,
        }  # fmt: skip

    def test_a_use_for_one_patient(self, log: Emergency, tmp_path: Path) -> None:
        row = log.open(log.who, "carla", "anna")
        log.sealed(log.who)
        log.close(log.who)
        used = f"used for one patient, 3 entries, by entry 7, {row.time}, approved by 'carla', 'anna'"
        said = words(log, tmp_path)
        assert f"break-glass was {used}; no ceremony has answered it" in said
        assert f"request {log.of()}, token 'bg-{log.of()[:8]}'" in said
        assert found(log, tmp_path)["uses"] == [
            {"answered": None, "approved_by": ["carla", "anna"], "entry": 7, "name": f"bg-{log.of()[:8]}",
             "noted": False, "phase": "done", "request": log.of(), "scope": "patient", "signed": 3, "time": row.time}
        ]  # fmt: skip
        log.rotated()
        assert f"{used}; answered by the ceremony of {log.rows[-2].time}" in words(log, tmp_path)
        assert found(log, tmp_path)["uses"][0]["answered"] == log.rows[-2].time

    def test_the_practice(self, log: Emergency, tmp_path: Path) -> None:
        log.practice()
        assert "used for the practice, by entry 7" in words(log, tmp_path)
        assert "the recovery of the practice has not ended" in words(log, tmp_path)
        log.recover(log.new, log.doctor, log.reserve)
        said = words(log, tmp_path)
        assert "the recovery of the practice has not ended" not in said
        assert f"token 'emergency' {log.new.id.hex()}: introduced by entry 7, signed 3 entries" in said
        assert said.count("retired by entry 9") == 2

    def test_old_shares_that_are_left(self, log: Emergency, tmp_path: Path) -> None:
        before = log.custody["ceremony"]
        log.rotated()
        assert f"old share '{before}:ben' is not proven destroyed" in words(log, tmp_path)
        left = [f"{before}:{name}" for name in ("anna", "ben", "carla")]
        assert found(log, tmp_path)["old_shares_not_destroyed"] == left
        log.destroy()
        log.sealed(log.doctor)
        assert found(log, tmp_path)["old_shares_not_destroyed"] == []

    def test_what_comes_from_the_file_does_not_act_on_a_terminal(self, log: Emergency, tmp_path: Path) -> None:
        log.custodian_told(row=True, model="\x1b[2J", serial="\x1b[2J")
        said = words(log, tmp_path)
        assert "\\x1b[2J" in said
        assert "\x1b" not in said


def share(before: str, **changed: object) -> dict[str, object]:
    return {"ceremony": before, "destroyed": True, "name": "ben", "serial": "C2"} | changed


CERTIFIED: dict[str, Callable[[Emergency], Row]] = {
    "Break-glass rotated: anna, ben, carla": lambda log: log.ceremony(log.doctor, log.reserve, reason="rotate"),
    "Custodian replaced: anna, dora": lambda log: log.ceremony(
        log.doctor, names=("anna", "dora"), reason="replace", retire=(log.reserve,)
    ),
    "Practice recovered: emergency": lambda log: (
        log.practice(),
        log.recover(log.new, log.doctor, log.reserve),
    )[1],
}


class TestCertificates:
    """Each is of entry 8; the ceremony of entry 5 is the one before."""

    def judge(self, log: Emergency, directory: Path, by: SoftToken, row: Row, title: str, **changed: object) -> str:
        document, note = log.certificate(by, row, title, **changed)
        (directory / "c.md").write_bytes(note)
        (directory / "c.json").write_bytes(document)
        code, said = verify(log, directory, "--certificate", str(directory / "c.md"))
        assert code in (0, 5)
        return said

    @pytest.mark.parametrize("title", CERTIFIED)
    def test_of_each_kind(self, log: Emergency, tmp_path: Path, title: str) -> None:
        row = CERTIFIED[title](log)
        by = log.new if title.startswith("Practice") else log.doctor
        said = self.judge(log, tmp_path, by, row, title)
        assert f"certificate of entry {row.sequence} (with its JSON): {title!a}" in said
        kind, named = title.split(": ")
        more = [] if kind == "Custodian replaced" else [f"{kind}: {named}, dora", f"{kind}: doctor"]
        for other in (*more, "Break-glass ceremony: anna, ben, carla", f"Months shredded: {named}"):
            assert "not what the log tells" in self.judge(log, tmp_path, by, row, other)
        wrong = self.judge(log, tmp_path, by, row, title, action="breakglass.ceremony")
        assert "the JSON beside it has another action" in wrong

    def test_of_the_first_ceremony(self, log: Emergency, tmp_path: Path) -> None:
        said = self.judge(log, tmp_path, log.doctor, log.rows[4], "Break-glass ceremony: anna, ben, carla")
        assert "certificate of entry 5 (with its JSON)" in said

    @pytest.mark.parametrize("change", [
        lambda told: None,
        lambda told: told | {"threshold": 3},
        lambda told: told | {"threshold": 2.0},
        lambda told: told | {"custodians": told["custodians"][::-1]},
        lambda told: told | {"custodians": [*told["custodians"][:2], told["custodians"][2] | {"serial": "C9"}]},
        lambda told: told | {"more": 1},
        lambda told: {name: told[name] for name in told if name != "key"},
    ])  # fmt: skip
    def test_other_custodians_than_the_log_has(
        self, log: Emergency, tmp_path: Path, change: Callable[[dict[str, Any]], object]
    ) -> None:
        title, row = "Break-glass ceremony: anna, ben, carla", log.rows[4]
        said = self.judge(log, tmp_path, log.doctor, row, title, custody=change(log.custody))
        assert "NOT VERIFIED" in said
        assert "another custody" in said or "canonical JSON" in said

    def test_custodians_of_a_shredding(self, log: Emergency, tmp_path: Path) -> None:
        row = log.rekey(log.doctor, log.reserve, shred=("2026-10",))
        title = "Months shredded: 2026-10"
        assert "certificate of entry 8" in self.judge(log, tmp_path, log.doctor, row, title)
        assert "another custody" in self.judge(log, tmp_path, log.doctor, row, title, custody=log.custody)

    def test_old_shares(self, log: Emergency, tmp_path: Path) -> None:
        before, title = log.custody["ceremony"], "Break-glass rotated: anna, ben, carla"
        row = log.ceremony(log.doctor, log.reserve, reason="rotate")

        def said(*shares: object, of: Row = row) -> str:
            return self.judge(log, tmp_path, log.doctor, of, title, old_shares=[*shares])

        assert "certificate of entry 8" in said(share(before), share(before, name="anna", serial="C1", destroyed=False))
        for wrong in (
            share(before, name="dora"), share(before, serial="C1"), share("ab" * 6), share(log.custody["ceremony"])
        ):  # fmt: skip
            assert "which the log has not, or not so" in said(wrong)
        assert "twice" in said(share(before), share(before))
        assert "not whether it is destroyed" in said(share(before, destroyed=1))
        for no_share in (share(before, more=1), "ben", None):
            assert "has other members" in said(no_share)
        assert "has other members" in self.judge(log, tmp_path, log.doctor, row, title, old_shares=None)
        present = log.custody["ceremony"]
        later = log.ceremony(log.doctor, log.reserve, reason="rotate")
        assert "certificate of entry 11" in said(share(before), share(present), of=later)
        assert "which the log has not, or not so" in said(share(present))

    def test_one_that_tells_of_no_custody_at_all(self, log: Emergency, tmp_path: Path) -> None:
        document, note = log.certificate(log.doctor, log.rows[4], "Break-glass ceremony: anna, ben, carla")
        value = json.loads(document)
        del value["custody"]
        cut = json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        text = note.decode().rpartition("\n\n")[0] + "\n"
        text = text.replace(sha256(document).hex(), sha256(cut).hex())
        (tmp_path / "c.md").write_bytes(log.signed_note(log.doctor, text, f"medcrypt/{log.vault.hex()}"))
        (tmp_path / "c.json").write_bytes(cut)
        assert "has other members" in verify(log, tmp_path, "--certificate", str(tmp_path / "c.md"))[1]
