"""scripts/standalone/verify_audit.py on certificates of re-keys, and what it reports of re-keying: one fault per test.

The practice is that of tests/support/audited_practice.py; entry 7 intends a re-key that shreds October, 8 commits it, 9
is sealed, and the certificate is of then.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.audited_practice import Practice, make_practice, run
from tests.support.vault_builder import Row, SoftToken, VaultBuilder, canonical, sha256

TITLE = "Months shredded: 2026-10"


@dataclass
class Certified:
    practice: Practice
    row: Row
    document: bytes
    note: bytes

    @property
    def built(self) -> VaultBuilder:
        return self.practice.built

    def again(self, by: SoftToken | None = None, title: str = TITLE, **changed: object) -> Certified:
        """Another certificate of the same re-key."""
        self.document, self.note = self.built.certificate(by or self.practice.praxis, self.row, title, **changed)
        return self

    def signed(self, change: Callable[[str], str]) -> Certified:
        """The note's text changed, and signed as it is; the JSON is left out."""
        text = change(self.note.decode().rpartition("\n\n")[0] + "\n")
        self.document, self.note = b"", self.built.signed_note(self.practice.praxis, text, self.name)
        return self

    @property
    def name(self) -> str:
        return f"medcrypt/{self.built.vault.hex()}"

    def run(self, *more: str) -> tuple[int, str]:
        directory = self.practice.directory
        (directory / "c.md").write_bytes(self.note)
        (directory / "c.json").unlink(missing_ok=True)
        if self.document:
            (directory / "c.json").write_bytes(self.document)
        (directory / "key.pem").write_bytes(self.practice.praxis.pem())
        key = ("--public-key", str(directory / "key.pem"))
        return run(str(self.practice.file()), *key, "--certificate", str(directory / "c.md"), *more)

    def verified(self) -> str:
        code, said = self.run()
        assert code == 0, said
        return said

    def refused(self, why: str) -> None:
        code, said = self.run()
        assert code == 5, said
        assert why in said
        assert said.count("\n") == 1


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    practice = make_practice(tmp_path)
    for token in (practice.praxis, practice.reserve):
        practice.built.add_keyset(token)
    row = practice.built.rekey(practice.praxis, practice.reserve, shred=("2026-10",))
    return Certified(practice, row, b"", b"").again()


class TestVerified:
    def test_with_and_without_its_json(self, certified: Certified) -> None:
        assert f"certificate of entry 8 (with its JSON): '{TITLE}'" in certified.verified()
        certified.document = b""
        assert "certificate of entry 8 (its JSON is not beside it)" in certified.verified()

    def test_by_another_token(self, certified: Certified) -> None:
        certified.again(certified.practice.reserve).verified()

    def test_of_an_erased_patient(self, certified: Certified) -> None:
        certified.row = certified.built.rekey(certified.practice.praxis, erase=("ab" * 8,))
        certified.again(title="Patient erased: EXP-1").verified()
        certified.again(title=TITLE).refused("not what the log tells")

    def test_of_a_removed_token(self, certified: Certified) -> None:
        certified.row = certified.built.rekey(certified.practice.praxis, retire=(certified.practice.reserve,))
        certified.again(title="Token removed: reserve").verified()
        certified.again(title="Token removed: praxis").refused("not what the log tells")

    def test_a_name_that_means_something_elsewhere(self, certified: Certified) -> None:
        odd = SoftToken("dr_[garcía]\u202e")
        certified.built.introduce(odd, certified.practice.praxis)
        certified.row = certified.built.rekey(certified.practice.praxis, retire=(odd,))
        title = "Token removed: dr\\u005f\\u005bgarcía\\u005d\\u202e"
        certified.again(title=title, subject=odd.name).verified()
        certified.again(title=title.replace("\\u202e", ""), subject=odd.name).refused("not what the log tells")

    def test_by_a_token_that_was_retired_later(self, certified: Certified) -> None:
        """What it signed in its time still counts; a time is what it said, and nobody can tell more."""
        certified.again(certified.practice.reserve)
        certified.built.rekey(certified.practice.praxis, retire=(certified.practice.reserve,))
        certified.verified()
        certified.again(certified.practice.reserve).refused("was not valid at that time")

    def test_report(self, certified: Certified) -> None:
        certified.built.rekey(certified.practice.praxis, retire=(certified.practice.reserve,))
        certified.built.intend(certified.practice.praxis, reason="erase")
        said = certified.verified()
        reserve = certified.practice.reserve.id.hex()
        assert f"token 'reserve' {reserve}: introduced by entry 3, signed 2 entries, retired by entry 11" in said
        assert f"month 2026-10 was shredded by entry 8, {certified.row.time}" in said
        assert "re-keyed 2 times; pairings erased: 0" in said
        assert "vault.rekey was begun and has not ended" in said
        assert "not proven destroyed" not in said
        code, said = certified.run("--json")
        found = json.loads(said)
        assert (code, found["generation"], found["unfinished"], found["not_destroyed"]) == (0, 3, "vault.rekey", [])
        assert [token["retired"] for token in found["tokens"]] == [None, 11]
        assert found["shredded"] == [{"month": "2026-10", "entry": 8, "time": certified.row.time}]
        assert found["certificates"] == [{"entry": 8, "title": TITLE, "json": True}]

    def test_an_old_root_key_that_is_left_is_named(self, certified: Certified) -> None:
        certified.built.intend(certified.practice.praxis)
        certified.built.commit(certified.practice.praxis, certified.practice.reserve)
        assert "old root key '2:reserve' is not proven destroyed" in certified.verified()


class TestTheNote:
    def test_any_byte_changed(self, certified: Certified) -> None:
        certified.verified()
        whole = certified.note
        for at in range(0, len(whole), 7):
            certified.note = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            assert certified.run()[0] == 5, at

    def test_signed_by_a_stranger(self, certified: Certified) -> None:
        certified.again(SoftToken("praxis")).refused("not that of a token in this log")

    @pytest.mark.parametrize("more", ["\n", "\nmore\n"])
    def test_more_behind_it(self, certified: Certified, more: str) -> None:
        certified.note += more.encode()
        certified.refused("not a medcrypt note with one signature")

    def test_two_signatures(self, certified: Certified) -> None:
        certified.note += certified.note.rpartition(b"\n\n")[2]
        certified.refused("not a medcrypt note with one signature")

    def test_under_another_vaults_name(self, certified: Certified) -> None:
        text = certified.note.decode().rpartition("\n\n")[0] + "\n"
        certified.note = certified.built.signed_note(certified.practice.praxis, text, f"medcrypt/{'00' * 16}")
        certified.refused("does not begin as the spec says")

    def test_of_another_vault(self, certified: Certified) -> None:
        certified.again(vault="00" * 16).refused("is of another vault")

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: "\n" + text,
            lambda text: text.replace("# ", "## ", 1),
            lambda text: text.replace("entry 8.", "entry 08."),
            lambda text: text.replace("entry 8.", "entry 8"),
            lambda text: text.replace("Entry hash", "Hash"),
            lambda text: text.replace("Ordered by mara at ", "Ordered by mara\nat "),
            lambda text: text.replace("certified at 20", "certified at  20"),
            lambda text: text.replace("certified at 2026-11", "certified at 2026-13"),
            lambda text: text.replace("Vault ", "Vault  "),
            lambda text: text.replace("\n## Old root keys", "## Old root keys"),
            lambda text: text.replace("SHA-256: ", "SHA-256: AA"),
            lambda text: "a checkpoint\n",
        ],
    )
    def test_not_of_the_form(self, certified: Certified, change: Callable[[str], str]) -> None:
        certified.signed(lambda text: text).verified()
        before = certified.note
        certified.signed(change)
        assert certified.note != before
        assert certified.run()[0] == 5

    def test_not_a_certificates_name(self, certified: Certified) -> None:
        certified.run()
        other = certified.practice.directory / "c.txt"
        other.write_bytes(certified.note)
        code, said = certified.run("--certificate", str(other))
        assert code == 5
        assert "not the .md file" in said


class TestWhatItNames:
    @pytest.mark.parametrize("changed", [{"entry": 7}, {"entry": 99}, {"generation": 3}, {"hash": "00" * 32}])
    def test_another_entry(self, certified: Certified, changed: dict[str, object]) -> None:
        certified.again(**changed).refused("no such entry that commits a re-key")

    def test_the_re_key_before(self, certified: Certified) -> None:
        other = certified.built.rekey(certified.practice.praxis)
        certified.again(entry=other.sequence).refused("no such entry that commits a re-key")

    def test_another_month(self, certified: Certified) -> None:
        certified.again(title="Months shredded: 2026-09").refused("not what the log tells")

    def test_more_months(self, certified: Certified) -> None:
        certified.again(title=TITLE + ", 2026-11").refused("not what the log tells")

    def test_certified_before_it_was_done(self, certified: Certified) -> None:
        certified.again(time="2026-11-07T09:00:00Z").refused("not valid at that time")

    def test_by_a_token_that_it_removed(self, certified: Certified) -> None:
        certified.row = certified.built.rekey(certified.practice.praxis, retire=(certified.practice.reserve,))
        title = "Token removed: reserve"
        certified.again(certified.practice.reserve, title, time=certified.row.time).refused("not valid at that time")

    def test_by_a_token_that_came_later(self, certified: Certified) -> None:
        third, now = SoftToken("third"), certified.built.now()
        certified.built.introduce(third, certified.practice.praxis)
        certified.again(third, time="2026-11-09T09:00:00Z").refused("not valid at that time")
        certified.again(third, time=now).verified()


class TestTheJson:
    def test_another_document(self, certified: Certified) -> None:
        certified.document += b"\n"
        certified.refused("not the one that it names")

    @pytest.mark.parametrize("changed", [
        {"entry": 9}, {"entry": True}, {"hash": "00" * 32}, {"version": 2}, {"version": True}, {"signer": "00" * 32},
        {"action": "patient.erase"}, {"subject": "2026-09"}, {"vault": "00" * 16}, {"generation": "2"},
        {"time": "2026-11-30T00:00:00Z"}, {"intended": ""}, {"more": 1},
    ])  # fmt: skip
    def test_it_disagrees_with_the_words(self, certified: Certified, changed: dict[str, object]) -> None:
        """The note names this very document: who signed it contradicts themselves."""
        document = canonical(json.loads(certified.document) | changed) + b"\n"
        old, new = sha256(certified.document).hex(), sha256(document).hex()
        certified.signed(lambda text: text.replace(old, new)).document = document
        certified.refused("the JSON beside")

    @pytest.mark.parametrize("change", [
        lambda line: json.dumps(json.loads(line)).encode() + b"\n", lambda line: line[:-1], lambda line: line + b"\n",
        lambda line: b"[]\n",
    ])  # fmt: skip
    def test_one_that_is_not_canonical(self, certified: Certified, change: Callable[[bytes], bytes]) -> None:
        document = change(certified.document)
        old, new = sha256(certified.document).hex(), sha256(document).hex()
        certified.signed(lambda text: text.replace(old, new)).document = document
        certified.refused("canonical JSON")


class TestCheckpoints:
    def test_by_a_token_that_was_retired_before(self, certified: Certified) -> None:
        built, reserve = certified.built, certified.practice.reserve
        good = built.checkpoint(reserve)
        built.rekey(certified.practice.praxis, retire=(reserve,))
        certified.practice.verified(notes=(good,))
        certified.practice.refused("was not valid at that entry", notes=(built.checkpoint(reserve),), entry=12)

    def test_by_a_token_that_came_later(self, certified: Certified) -> None:
        built, reserve = certified.built, certified.practice.reserve
        certified.practice.refused(
            "not valid at that entry", notes=(built.checkpoint(reserve, built.rows[1]),), entry=2
        )
