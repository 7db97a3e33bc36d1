"""scripts/recover.py: one fault in a file a test, and what is said about it.

The vaults are those of tests/support_recover.py. What the script opens: tests/test_recover_script.py.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm import xwing
from tests.support_recover import CUSTODIANS, MONTHS, V2_PATIENT, OpenableVault, Practice, make_practice
from tests.support_vault_builder import SoftToken, ctx, tamper, u64


@pytest.fixture
def practice(tmp_path: Path) -> Practice:
    return make_practice(tmp_path)


def sign_anew(practice: Practice) -> None:
    """One more entry, so that the trust state as it is now is what the newest head signed."""
    practice.built.told("audit.show", {"filter": {}}, practice.praxis)


def change(practice: Practice, kind: str, name: str, **changed: object) -> None:
    practice.built.change_row(kind, name, **changed)
    sign_anew(practice)


def reseal(practice: Practice, *, generation: int = 2, seed: bytes = b"", keys: bytes = b"") -> None:
    info = ctx("medcrypt/escrow", practice.built.vault, u64(generation), practice.ceremony.id)
    public = xwing.public_key(seed or practice.ceremony.seed)
    sealed = xwing.seal(public, info, keys or practice.built.keys)
    change(practice, "escrow", "", sealed=sealed.hex())


def drop_ceremony(practice: Practice) -> None:
    practice.built = OpenableVault(vault=practice.built.vault, ceremony=practice.built.ceremony)
    practice.built.log_keys.append(os.urandom(32))
    practice.built.open_month("2026-09")
    practice.built.introduce(practice.praxis, practice.praxis)


def rehash(practice: Practice) -> None:
    row = practice.built.rows[2]
    row.stored = row.stored[:-1] + bytes([row.stored[-1] ^ 1])
    practice.built.rehash(3)


def retired_signs(practice: Practice) -> None:
    spare = SoftToken("reserve")
    practice.built.introduce(spare, practice.praxis, serial="98")
    practice.built.rekey_again(practice.praxis, reason="remove-token", retire=spare)
    practice.built.told("audit.show", {"filter": {}}, spare)


def ceremony_again(practice: Practice, **changed: object) -> None:
    practice.built.hold_ceremony(practice.praxis, reason="rotate", **changed)


def one_custodian_twice(practice: Practice) -> list[dict[str, object]]:
    told = json.loads(practice.built.rows[6].stored[1:])["detail"]["custody"]["custodians"]
    return [told[0], told[1], told[2] | {"name": "ana"}]


NOT_THE_FILE: dict[str, tuple[Callable[[Practice], object], str]] = {
    "no ceremony": (drop_ceremony, "this vault has no break-glass ceremony"),
    "an entry without a signature of its own": (rehash, "entry 3: its head's signature is not that of token 'praxis'"),
    "a stranger's entry": (lambda p: p.built.told("notes", {}, SoftToken("x")), "which was not introduced before"),
    "a name of another": (
        lambda p: p.built.clear("vault.restore", {}, p.praxis, token="x"),
        "entry 10: it names token 'x' but 'praxis' signed it",
    ),
    "an unknown action": (
        lambda p: p.built.clear("vault.polish", {}, p.praxis),
        "'vault.polish', 'done' is not in the clear by this version of the spec",
    ),
    "a token that was retired": (retired_signs, "signed by token 'reserve', which entry 12 retired"),
    "trust rows that nobody signed": (
        lambda p: p.built.change_row("custodian", "ana", commitment="00" * 32),
        "the trust state is not the one that the newest head signed",
    ),
    "another custodian's row": (
        lambda p: change(p, "custodian", "ana", commitment="00" * 32),
        "the row of custodian 'ana' is not what the ceremony's entry told",
    ),
    "another threshold": (
        lambda p: change(p, "breakglass", "", threshold=3),
        "the break-glass row is not that of the ceremony's entry",
    ),
    "another key": (
        lambda p: change(p, "breakglass", "", key="00" * 1216),
        "the break-glass key on record is not the one that the ceremony's entry names",
    ),
    "an escrow of another generation": (
        lambda p: change(p, "escrow", "", generation=1),
        "the escrow is not of the present ceremony and generation",
    ),
    "an escrow sealed for another generation": (lambda p: reseal(p, generation=1), "the escrow does not open"),
    "an escrow for another key": (lambda p: reseal(p, seed=bytes(32)), "the escrow does not open"),
    "an escrow that is short": (
        lambda p: reseal(p, keys=bytes(64)),
        "trust row 'escrow' '': 'sealed' is not what the spec says",
    ),
    "a ceremony without a custody": (
        lambda p: p.built.rekey_again(p.praxis, reason="rotate"),
        "a re-key of reason 'rotate' lacks a custody",
    ),
    "a ceremony id once more": (
        lambda p: ceremony_again(p, ceremony=p.ceremony.id.hex()),
        "the custody's ceremony id is an earlier one's",
    ),
    "custodians of one name": (
        lambda p: ceremony_again(p, custodians=one_custodian_twice(p)),
        "the custody's threshold, names or approval keys cannot be",
    ),
    "a threshold of one": (
        lambda p: ceremony_again(p, threshold=1),
        "the custody's threshold, names or approval keys cannot be",
    ),
    "a re-key that was not intended": (
        lambda p: p.built.commit(p.praxis),
        "entry 10: vault.rekey ends that was not intended, or not so",
    ),
    "a log key that was not made": (
        lambda p: p.built.append(b"\x01\0\0\0\x07" + bytes(60), p.praxis),
        "an entry is sealed under a log key that was not made yet",
    ),
}


def opens(*xs: int, approval: dict[str, object] | None = None, **request: object) -> Callable[[Practice], object]:
    """`breakglass.open` for one patient, with approvals of these custodians."""
    return lambda practice: practice.built.open_patient(SoftToken(""), xs=xs or (1, 2), approval=approval, **request)


def forged_approvals(practice: Practice) -> None:
    real = practice.ceremony
    practice.built.ceremony = real._replace(approvers=tuple(SoftToken(name) for name in CUSTODIANS))
    practice.built.open_patient(SoftToken(""))
    practice.built.ceremony = real


def used_again(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    again = json.loads(practice.built.rows[-1].stored[1:])["detail"]
    practice.built.clear("breakglass.open", again, guest)


def guest_changes_trust(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    practice.built.open_month("2026-12")
    practice.built.told("message.decrypt", {}, guest)


def guest_introduces(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    practice.built.introduce(SoftToken("mine"), guest, row=False, serial="98")


def guest_stays(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    sign_anew(practice)
    practice.built.told("message.decrypt", {}, guest)


def guest_is_late(practice: Practice) -> None:
    guest = SoftToken("")
    id_ = practice.built.open_patient(guest)
    for _ in range(4):
        practice.built.told("message.decrypt", {}, guest)
    practice.built.clear("breakglass.close", {"request": id_.hex()}, guest)


def late(practice: Practice) -> None:
    guest = SoftToken("")
    request, id_ = practice.built.request(guest, "patient")
    approvals = [practice.built.approval(x, id_) for x in (1, 2)]
    for _ in range(4):
        sign_anew(practice)
    practice.built.clear("breakglass.open", {"approvals": approvals, "request": request}, guest)


def before_the_ceremony(practice: Practice) -> None:
    row = practice.built.rows[5]
    practice.built.open_patient(SoftToken(""), hash=row.hash.hex(), sequence=row.sequence)


NOT_AN_OPENING: dict[str, tuple[Callable[[Practice], object], str]] = {
    "too few approvals": (opens(1), "not as many approvals, of different custodians, as it takes (BG-2)"),
    "one custodian twice": (opens(1, 1), "not as many approvals, of different custodians, as it takes (BG-2)"),
    "of another request": (opens(approval={"request": "ab" * 32}), "an approval is of another request"),
    "of another's x": (opens(approval={"x": 3}), "an approval is of another request or of no custodian (BG-3)"),
    "of another share": (opens(approval={"commitment": "ab" * 32}), "of another share than that custodian's"),
    "of another log": (opens(approval={"audit_key": "ab" * 32}), "or of another log (BG-3)"),
    "of another ceremony": (opens(approval={"ceremony": "ab" * 6}), "an approval is not of this vault and ceremony"),
    "an approval that is late": (
        opens(approval={"time": "2026-12-01T00:00:00Z"}),
        "an approval was given when the request had ended, or was not made yet (BG-4)",
    ),
    "an approval that is early": (
        opens(approval={"time": "2026-11-01T00:00:00Z"}),
        "an approval was given when the request had ended, or was not made yet (BG-4)",
    ),
    "forged approvals": (forged_approvals, "an approval is not signed by custodian 'ana' (BG-3)"),
    "another history": (opens(hash="ab" * 32), "an entry that a registered token did not write since the ceremony"),
    "a history before": (before_the_ceremony, "an entry that a registered token did not write since the ceremony"),
    "a request of a year": (opens(expires="2027-11-01T00:00:00Z"), "later than three days after it was made (BG-4)"),
    "a request that had ended": (late, "the request had ended, or was not made or approved yet (BG-4)"),
    "a request that was used": (used_again, "the request was used before, or its signer was (BG-5)"),
    "a guest that changes the trust state": (guest_changes_trust, "a guest changed the trust state"),
    "a guest that introduces a token": (guest_introduces, "a guest may only write sealed entries"),
    "a guest that stays": (guest_stays, "which was not introduced before"),
    "a guest that is late": (guest_is_late, "a guest wrote it when the request had ended (BG-4)"),
    "a guest's end without a guest": (
        lambda p: p.built.clear("breakglass.close", {"request": "ab" * 32}, p.praxis),
        "it ends a guest's run, and no guest wrote it",
    ),
    "an heir of a guest's name": (
        lambda p: p.built.open_practice(SoftToken("bg-00000000")),
        "token 'bg-00000000' has a guest's name, or is a custodian's (BG-1)",
    ),
    "an heir that is a custodian": (
        lambda p: p.built.open_practice(SoftToken("heir"), serial="2"),
        "token 'heir' has a guest's name, or is a custodian's (BG-1)",
    ),
}


class TestFile:
    @pytest.mark.parametrize("what", NOT_THE_FILE)
    def test_a_log_that_does_not_lead_from_the_shares_to_the_keys(self, practice: Practice, what: str) -> None:
        fault, why = NOT_THE_FILE[what]
        fault(practice)
        practice.refused(why)

    @pytest.mark.parametrize("what", NOT_AN_OPENING)
    def test_a_use_that_the_custodians_did_not_allow(self, practice: Practice, what: str) -> None:
        fault, why = NOT_AN_OPENING[what]
        fault(practice)
        practice.refused(why)

    def test_a_file_that_somebody_without_a_token_made(self, practice: Practice, tmp_path: Path) -> None:
        """All that is public is as in the real file, and the keyset is the forger's."""
        real, own, forged = practice.ceremony, SoftToken("praxis"), OpenableVault(vault=practice.built.vault)
        forged.open_month(MONTHS[0])
        forged.introduce(own, own)
        forged.log_keys.append(os.urandom(32))
        told = json.loads(practice.built.rows[6].stored[1:])["detail"]["custody"]
        forged.hold_ceremony(own, **told)
        for (kind, name), value in practice.built.trust.items():
            if kind in ("custodian", "breakglass"):
                forged.trust[kind, name] = value
        forged.change_row("breakglass", "", entry=3, since=forged.rows[2].time, audit_key=own.id.hex())
        forged.change_row("escrow", "", ceremony=real.id.hex())
        forged.told("audit.show", {}, own)
        file = forged.write(tmp_path / "forged")
        practice.refused("names another audit key than signed the ceremony (entry 3)", file=file)
        # To claim that it was the real token is of no use either: what signed the entry counts, not what a row says.
        forged.change_row("breakglass", "", audit_key=real.signer.id.hex())
        forged.told("audit.show", {}, own)
        practice.refused("the break-glass row is not that of the ceremony's entry", file=forged.write(file))

    @pytest.mark.parametrize(
        ("statement", "why"),
        [
            ("UPDATE entries SET stored = zeroblob(9) WHERE sequence = 3", "entry 3: its hash does not follow"),
            ("DELETE FROM entries WHERE sequence = 4", "entry 4: it is missing"),
            ("DELETE FROM entries", "the log is empty"),
            ("DELETE FROM entries WHERE sequence > 8", "the trust state is not the one that the newest head signed"),
            ("DELETE FROM trust WHERE kind = 'vault'", "the trust state has no row 'vault' ''"),
            ("DELETE FROM trust WHERE kind = 'escrow'", "the trust state is not the one"),
            ("UPDATE trust SET value = 'x' || value WHERE kind = 'vault'", "not readable as a vault"),
            ("UPDATE trust SET value = CAST('{}' AS BLOB) WHERE kind = 'vault'", "has other members than the spec's"),
            ("PRAGMA application_id = 1", "not a medcrypt vault of schema 1: application_id is not 1296385091"),
            ("PRAGMA user_version = 2", "not a medcrypt vault of schema 1: user_version is not 1"),
            ("CREATE TABLE more (x)", "the file's schema is not as the spec says"),
            ("CREATE TRIGGER t AFTER INSERT ON trust BEGIN SELECT 1; END", "the file's schema is not as the spec says"),
            ("DROP TABLE seen", "the file's schema is not as the spec says"),
        ],
    )
    def test_a_file_that_was_tampered_with(self, practice: Practice, statement: str, why: str) -> None:
        file = practice.file()
        try:
            tamper(file, statement)
        except sqlite3.IntegrityError:  # STRICT: text is no blob
            tamper(file, "UPDATE trust SET value = zeroblob(8) WHERE kind = 'vault'")
            why = "trust row 'vault' '' is not canonical JSON"
        practice.refused(why, file=file)

    def test_a_journal_that_is_a_link(self, practice: Practice, tmp_path: Path) -> None:
        file = practice.file()
        file.with_name(file.name + "-wal").symlink_to(tmp_path / "elsewhere")
        practice.refused("beside the file lies a journal that is not a regular file", file=file)

    def test_what_is_no_vault(self, practice: Practice, tmp_path: Path) -> None:
        for content in (b"", b"\0" * 4096, b"not a vault", practice.file().read_bytes()[:5000]):
            (tmp_path / "x").write_bytes(content)
            done = practice.run("check", file=tmp_path / "x")
            assert (done.code, done.out, done.err.count("\n")) == (5, "", 2), done
        for path in (tmp_path, tmp_path / "nowhere", tmp_path / "a\0b"):
            done = practice.run("check", file=path)
            assert done.code in (2, 5)
            assert (done.out, done.err.count("\n")) == ("", 2), done

    def test_any_byte_may_be_another(self, practice: Practice) -> None:
        content, chance, path = practice.file().read_bytes(), random.Random(4711), practice.directory / "flipped"
        codes = set()
        for _ in range(150):
            flipped = bytearray(content)
            flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            done = practice.run("check", file=path)
            assert "error: " in done.err or done.code == 0
            codes.add(done.code)
        assert codes <= {0, 5}  # 0: where nothing is kept


class TestRows:
    """Who can write to the file can alter these rows: `check` finds it, and the rest still opens."""

    @pytest.mark.parametrize(
        ("statement", "why"),
        [
            ("UPDATE records SET mac = zeroblob(32) WHERE purpose = 'chain'", "chain key of {v2} 2026-11 was altered"),
            ("UPDATE records SET month = '2026-12' WHERE purpose = 'chain'", "chain key of {v2} 2026-12 was altered"),
            (
                "DELETE FROM records WHERE month = '2026-09'",
                "record:message:{v2}:2026-09 is not there, but the log has",
            ),
            ("DELETE FROM records WHERE month = '00000001'", "entry 2: log key 1 is not in the vault"),
            ("DELETE FROM sealed WHERE purpose = 'v1-secret'", "sealed:v1-secret:{v1} is not there, but the log has"),
            ("UPDATE sealed SET body = zeroblob(9) WHERE purpose = 'v1-secret'", "v1-secret row of {v1} was altered"),
            ("UPDATE sealed SET lookup = zeroblob(32) WHERE purpose = 'patient'", "patient row of {v1} was altered"),
        ],
    )
    def test_check_names_the_row(self, practice: Practice, statement: str, why: str) -> None:
        file = tamper(practice.file(), statement)
        done = practice.run("check", file=file)
        assert done.code == 5
        assert f"{why.format(v1=practice.v1.hex(), v2=practice.v2.hex())}" in done.err
        assert done.out.endswith("not everything opens\n")
        text = practice.built.message(practice.v2, "2026-10", "hola")
        if "patient" not in statement:
            assert practice.run("read", file=file, text=text).out.endswith(" ==\nhola\n")

    def test_an_older_copy_of_a_row(self, practice: Practice) -> None:
        """Its MAC is right, for it was true once."""
        ref = f"record:message:{practice.v2.hex()}:2026-10"
        old = practice.built.wrapped[ref]
        key = practice.built.key(practice.v2, "2026-10")
        practice.built.record("message", practice.v2, "2026-10", key)
        practice.built.told("month.open", {"writes": [ref]}, practice.praxis)
        practice.built.wrapped[ref] = old
        done = practice.run("check")
        assert done.code == 5
        assert f"row {ref} is of entry 5, but the log has it of entry 10\n" in done.err

    def test_a_hold_is_opened(self, practice: Practice) -> None:
        name = os.urandom(8)
        row = practice.built.keyset.seal("hold", name, 10, {"month": "", "patient": "x", "reasons": [], "since": ""})
        hold = {"nonce": row.nonce.hex(), "sealed": row.body.hex(), "sequence": 10}
        practice.built.set_trust("hold", name.hex(), hold)
        sign_anew(practice)
        assert "holds: 1\n" in practice.run("check").out
        practice.built.set_trust("hold", name.hex(), hold | {"sequence": 9})
        sign_anew(practice)
        assert f"the hold row of {name.hex()} was altered" in practice.run("check").err

    def test_patients_go_on_behind_a_row_that_does_not_open(self, practice: Practice) -> None:
        where = f"purpose = 'patient' AND pairing = x'{practice.v1.hex()}'"
        done = practice.run("patients", file=tamper(practice.file(), f"UPDATE sealed SET sequence = 1 WHERE {where}"))
        assert done.code == 5
        assert f"the patient row of {practice.v1.hex()} was altered" in done.err
        assert V2_PATIENT in done.out

    def test_what_a_guest_may_not_have_written(self, practice: Practice) -> None:
        """What is sealed is seen only now."""
        guest = SoftToken("")
        practice.built.open_patient(guest)
        practice.built.told("patient.add", {}, guest)
        practice.built.told("message.decrypt", {"writes": ["sealed:patient:00"]}, guest)
        practice.built.told("message.failed", {}, guest)
        done = practice.run("check")
        assert done.code == 5
        assert [line for line in done.err.splitlines() if line.startswith("error: ")] == [
            "error: entry 11 is of a guest, who may not write it",
            "error: entry 12 is of a guest, who may not write it",
            "error: entry 13 was written by a guest when the request had ended (BG-4)",
        ]
