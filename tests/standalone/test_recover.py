"""scripts/standalone/recover.py: what two plain shares open, and one fault a test with what is said about it.

The vaults are those of tests/support/openable_vault.py. What is wrong with a file:
tests/standalone/test_recover_files.py.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from medcrypt_hsm.vault.inspection import verify_file
from scripts.standalone import recover
from tests.support.openable_vault import (
    MONTHS,
    V1_PATIENT,
    V2_PATIENT,
    Practice,
    entries_of,
    make_practice,
    run,
)
from tests.support.practice import forge
from tests.support.store import statements
from tests.support.vault_builder import SoftToken, canonical

SCRIPT = Path(recover.__file__)
PAIRS = list(combinations((1, 2, 3), 2))


@pytest.fixture
def practice(tmp_path: Path) -> Practice:
    return make_practice(tmp_path)


def texts(said: str) -> list[str]:
    """The messages' texts, of one line each."""
    return said.splitlines()[1::2]


class TestOpens:
    @pytest.mark.parametrize("pair", PAIRS)
    def test_each_pair_reads_three_months_of_both_versions(self, practice: Practice, pair: tuple[int, int]) -> None:
        built = practice.built
        chat = [built.message(practice.v2, month, f"dosis de {month}", sender="d") for month in MONTHS]
        chat += [built.message_v1(month, f"versión 1 de {month}") for month in MONTHS]
        done = practice.run("read", *pair, text="\nbla [x] ".join(chat))
        assert (done.code, done.err) == (0, "")
        assert texts(done.out) == [f"{what} de {month}" for what in ("dosis", "versión 1") for month in MONTHS]
        assert f"message 1 of 6: patient {V2_PATIENT!r}, from the doctor, 2026-09, 16 bytes" in done.out
        assert f"message 6 of 6: patient {V1_PATIENT!r}, from an unknown sender, 2026-11" in done.out

    def test_check_counts_and_shows_no_secret(self, practice: Practice) -> None:
        done = practice.run("check", 1, 3)
        assert (done.code, done.err) == (0, "")
        for line in (
            "9 entries, their hashes and signatures as they should be",
            f"ceremony {practice.ceremony.id.hex()} of 2026-11-07T09:00:00Z, entry 7: 2 of 3 custodians; "
            "shares of 'ana', 'carl'",
            "keyset 2 opened from the escrow",
            "months kept: 3 (2026-09, 2026-10, 2026-11); shredded: 0",
            "pairings: 2, of 2 patients",
            "keys: 3 message, 1 chain, 2 log, 1 seen; version 1 secrets: 1; pairing codes: 0; holds: 0",
            "entries opened: 9 of 9",
        ):
            assert line + "\n" in done.out
        assert done.out.endswith("everything opens, and every row is the one that the log tells of\n")

    @pytest.mark.parametrize("command", ["check", "patients", "log", "read"])
    def test_no_command_shows_a_key(self, practice: Practice, command: str) -> None:
        text = practice.built.message(practice.v2, MONTHS[0], "hola")
        done = practice.run(command, 1, 2, 3, text=text if command == "read" else "")
        assert done.code == 0
        said = (done.out + done.err).encode()
        assert not [secret for secret in practice.secrets() if secret in said or secret.hex().encode() in said]

    def test_patients_by_line(self, practice: Practice) -> None:
        head, *lines = practice.run("patients").out.splitlines()
        assert head.split("\t") == ["id", "label", "pairing", "protocol", "first month", "state"]
        assert [line.split("\t") for line in lines] == [
            [V1_PATIENT, "Paciente\\tEjemplo", practice.v1.hex(), "v1", "2026-09", "active"],
            [V2_PATIENT, "Paciente\\tEjemplo", practice.v2.hex(), "v2", "2026-09", "active"],
        ]

    def test_the_log_in_the_form_of_an_export(self, practice: Practice) -> None:
        entries = entries_of(practice.run("log").out)
        assert [entry["sequence"] for entry in entries] == list(range(1, 10))
        assert [entry["action"] for entry in entries][2:7] == [
            "patient.add", "patient.add", "month.open", "vault.rekey", "vault.rekey"
        ]  # fmt: skip
        assert list(entries[2]) == [
            "sequence", "time", "actor", "token", "action", "subject", "outcome", "detail", "hash"
        ]  # fmt: skip
        assert entries[2]["subject"] == V2_PATIENT
        assert entries[8]["hash"] == practice.built.rows[8].hash.hex()

    def test_the_file_is_only_read(self, practice: Practice) -> None:
        file = practice.file()
        before = file.read_bytes()
        practice.shares(1, 2)
        there = set(os.listdir(practice.directory))
        for command in ("check", "patients", "log"):
            assert practice.run(command, file=file).code == 0
        assert file.read_bytes() == before
        assert set(os.listdir(practice.directory)) == there

    def test_what_is_still_in_the_write_ahead_log_is_read(self, practice: Practice) -> None:
        file = practice.file()
        with statements(file) as run:
            run("PRAGMA journal_mode = WAL")
            practice.built.told("audit.show", {"filter": {}}, practice.praxis)
            row = practice.built.rows[-1]
            values = (row.sequence, row.stored, row.hash, row.trust, row.signer, row.signature)
            run("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", values)
            assert "10 entries" in practice.run("check", file=file).out

    def test_behind_a_shredding_under_the_same_ceremony(self, practice: Practice) -> None:
        practice.built.rekey_again(practice.praxis, shred=("2026-09",))
        done = practice.run("check")
        assert done.code == 0
        assert "keyset 3 opened from the escrow" in done.out
        assert "months kept: 2 (2026-10, 2026-11); shredded: 1" in done.out

    def test_behind_a_use_for_one_patient(self, practice: Practice) -> None:
        guest = SoftToken("")
        practice.built.close_patient(guest, practice.built.open_patient(guest), practice.praxis)
        assert practice.run("check").code == 0
        assert [entry["token"] for entry in entries_of(practice.run("log").out)][9:] == [guest.name] * 3 + ["praxis"]

    def test_behind_a_use_for_the_practice(self, practice: Practice) -> None:
        heir = SoftToken("notaria")
        practice.built.open_practice(heir)
        practice.built.recover(heir, practice.praxis)
        practice.built.hold_ceremony(heir, reason="rotate")
        assert practice.run("check").code == 0

    @pytest.mark.parametrize("what", ["made", "shredded", "rotated", "patient", "practice"])
    def test_the_packages_reader_accepts_these_files_too(self, practice: Practice, what: str) -> None:
        built = practice.built
        if what == "shredded":
            built.rekey_again(practice.praxis, shred=("2026-09",))
        if what == "rotated":
            built.hold_ceremony(practice.praxis, reason="rotate")
        if what == "patient":
            guest = SoftToken("")
            built.close_patient(guest, built.open_patient(guest), practice.praxis)
        if what == "practice":
            built.open_practice(heir := SoftToken("notaria"))
            built.recover(heir, practice.praxis)
        file = practice.file()
        file.chmod(0o600)
        assert verify_file(file, [practice.praxis.spki]).sequence == len(built.rows)
        assert practice.run("check", file=file).code == 0


NOT_THE_SHARE: dict[str, tuple[Callable[[Practice], tuple[int | bytes, ...]], str]] = {
    "twice": (lambda p: (2, 2), "the share of custodian 'berta' was given twice"),
    "too few": (lambda p: (3,), "1 shares were given, 2 are needed"),
    "x = 0": (lambda p: (1, p.ceremony.share(0)), "has x = 0: there are 1 to 3"),
    "x beyond": (lambda p: (1, p.ceremony.share(4)), "has x = 4: there are 1 to 3"),
    "another vault": (lambda p: (1, p.ceremony.share(2, vault="ab" * 16)), f"is of another vault, {'ab' * 16}"),
    "ceremony": (lambda p: (1, p.ceremony.share(2, ceremony="ab" * 6)), f"an unknown ceremony, {'ab' * 6}: this file"),
    "altered": (
        lambda p: (1, p.ceremony.share(2, y="00" * 32)),
        "is not the one that custodian 'berta' was given: it was altered",
    ),
    "x of another": (lambda p: (1, p.ceremony.share(2, x=3)), "is not the one that custodian 'carl' was given"),
    "audit key": (lambda p: (1, p.ceremony.share(2, audit_key="ab" * 32)), "names another audit key than signed"),
    "threshold": (lambda p: (1, p.ceremony.share(2, threshold=300)), "is one of 300 of 3, the ceremony of 2 of 3"),
    "of": (lambda p: (1, p.ceremony.share(2, of=4)), "is one of 2 of 4, the ceremony of 2 of 3"),
    "version": (lambda p: (1, p.ceremony.share(2, version=2)), "is of a version that this program does not know"),
    "short y": (lambda p: (1, p.ceremony.share(2, y="00" * 31)), "'y' is not what the spec says"),
    "member": (lambda p: (1, p.ceremony.share(2, more=1)), "has other members than the spec's"),
    "spaces": (lambda p: (1, p.ceremony.share(2).replace(b",", b", ")), "is not a canonical JSON object"),
    "two lines": (lambda p: (1, p.ceremony.share(2) * 2), "is not canonical JSON"),
    "nothing": (lambda p: (1, b""), "is not canonical JSON"),
    "no text": (lambda p: (1, b"\xff\x00" * 999), "is not canonical JSON"),
    "too much": (lambda p: (1, b"[" * 100_000), "is not canonical JSON"),
    "a list": (lambda p: (1, b"[]\n"), "is not a canonical JSON object"),
}


class TestShares:
    @pytest.mark.parametrize("what", NOT_THE_SHARE)
    def test_what_is_wrong_with_a_share_is_named(self, practice: Practice, what: str) -> None:
        shares, why = NOT_THE_SHARE[what]
        said = practice.refused(why, *shares(practice)).err
        assert not [y for y in practice.ceremony.shares if y.hex() in said]

    def test_who_else_has_a_share_is_said(self, practice: Practice) -> None:
        assert "hint: others have: 'ana', 'carl'\n" in practice.refused("2 are needed", 2).err

    def test_an_earlier_ceremonys_share(self, practice: Practice) -> None:
        old, copy = practice.ceremony, practice.file().rename(practice.directory / "copy")
        practice.built.hold_ceremony(practice.praxis, reason="replace")
        practice.refused(f"is of an earlier ceremony, {old.id.hex()}", 1, old.share(2))
        assert practice.run("check", old.share(1), old.share(2), file=copy).code == 0

    def test_all_shares_are_compared_though_fewer_are_enough(self, practice: Practice) -> None:
        practice.refused("custodian 'carl'", 1, 2, practice.ceremony.share(3, y="00" * 32))
        assert practice.run("check", 1, 2, 3).code == 0

    def test_a_file_that_others_can_read_is_warned_of(self, practice: Practice) -> None:
        shares = practice.shares(1, 2)
        os.chmod(shares[1], 0o640)
        done = run("patients", str(practice.file()), *shares)
        assert done.code == 0
        assert done.err == (
            f"warning: share file {shares[1]!r} can be read by others: chmod 600 it, and destroy it afterwards\n"
        )

    def test_from_a_pipe_and_with_another_line_end(self, practice: Practice) -> None:
        reading, writing = os.pipe()
        os.write(writing, practice.ceremony.share(1).replace(b"\n", b"\r\n"))
        os.close(writing)
        try:
            done = run("check", str(practice.file()), *practice.shares(2), "--share", f"/dev/fd/{reading}")
        finally:
            os.close(reading)
        assert (done.code, done.err) == (0, "")


class TestMessages:
    def read(self, practice: Practice, *wires: str, code: int = 0, more: tuple[str, ...] = ()) -> tuple[str, str]:
        done = practice.run("read", text="\n".join(wires), more=more)
        assert done.code == code, done
        return done.out, done.err

    def test_a_month_that_was_not_opened_yet_is_derived(self, practice: Practice) -> None:
        wires = [practice.built.message(practice.v2, month, month) for month in ("2026-12", "2027-03")]
        assert texts(self.read(practice, *wires)[0]) == ["2026-12", "2027-03"]

    def test_parts_are_joined_in_any_order(self, practice: Practice) -> None:
        data = "mañana".encode()
        parts = [data[:3], data[3:5], data[5:]]  # the second cut is inside a character's UTF-8
        wires = [
            practice.built.message(practice.v2, "2026-10", part, part=f"{i}.3.3q2+7w")
            for i, part in enumerate(parts, 1)
        ]
        assert texts(self.read(practice, wires[2], wires[0], wires[1], wires[0])[0]) == ["mañana"]
        assert "incomplete: missing of its 3 parts: 2\n" in self.read(practice, wires[0], wires[2], code=5)[1]
        out, err = self.read(practice, *wires, forge(wires[1]), code=5)
        assert texts(out) == ["mañana"]
        assert "not authentic" in err
        other = practice.built.message(practice.v2, "2026-10", "x", part="2.3.3q2+7w")
        assert "malformed: part 2 comes twice and differs" in self.read(practice, *wires, other, code=5)[1]

    def test_one_fault_does_not_hide_the_rest(self, practice: Practice) -> None:
        good = practice.built.message(practice.v2, "2026-11", "hola")
        v1 = practice.built.message_v1("2026-10", "hola")
        stranger = good.replace(good.split(":")[2], "AAAAAAAAAAA")
        faults = [
            forge(good),
            stranger,
            "[MEDCRYPT:v3:x]",
            "[MEDCRYPT:v2:broken",
            v1.replace(":v1:", ":v1:A"),
            forge(v1),
        ]
        faults.append(practice.built.message_v1("2026-10", "hola", patient_id="nobody"))
        faults.append(good.replace("2026-11", "2026-08"))
        out, err = self.read(practice, *faults, good, code=5)
        assert texts(out) == ["hola"]
        said = [line.partition(": ")[2].partition(": ")[2] for line in err.splitlines() if line.startswith("error: ")]
        assert said == [
            "not authentic: altered on the way, or under another key",
            f"of pairing {bytes(8).hex()}, which this vault does not have",
            "malformed message",
            "malformed message: its end is missing",
            "malformed message",
            "not authentic under the version 1 keys of any month that may be read",
            "of a patient who has no version 1 pairing in this vault",
            f"the vault has no key of {V2_PATIENT!r} for 2026-08",
        ]

    def test_what_was_shredded_is_not_read_again(self, practice: Practice) -> None:
        wire = practice.built.message(practice.v2, "2026-09", "hola")
        v1 = practice.built.message_v1("2026-09", "hola")
        practice.built.rekey_again(practice.praxis, shred=("2026-09",))
        assert "the keys of 2026-09 were shredded on purpose" in self.read(practice, wire, code=5)[1]
        assert "not authentic under the version 1 keys" in self.read(practice, v1, code=5)[1]
        assert "were shredded on purpose" in self.read(practice, v1, code=5, more=("--month", "2026-09"))[1]

    def test_version_1_of_a_month_before_the_vault(self, practice: Practice) -> None:
        wire = practice.built.message_v1("2025-02", "antes")
        assert "name its month with --month" in self.read(practice, wire, code=5)[1]
        assert texts(self.read(practice, wire, more=("--month", "2025-02"))[0]) == ["antes"]

    def test_what_was_seen_and_what_replays_a_nonce(self, practice: Practice) -> None:
        wire, sent = (practice.built.message(practice.v2, "2026-10", text) for text in ("hola", "enviado"))
        v1 = practice.built.message_v1("2026-10", "uno")
        practice.built.see(practice.v2, "2026-10", wire)
        practice.built.see(practice.v2, "2026-10", sent, "sent")
        practice.built.see(practice.v1, "", v1)
        seen = [", seen before, " in line for line in self.read(practice, wire, sent, v1)[0].splitlines()[::2]]
        assert seen == [True, False, True]
        replay = practice.built.message(practice.v2, "2026-10", "otro", nonce=recover.parse_message(wire[1:-1]).nonce)
        assert "refused: its nonce was used before for another text" in self.read(practice, replay, code=5)[1]
        one, two = (practice.built.message(practice.v2, "2026-11", text, nonce=bytes(12)) for text in "ab")
        out, err = self.read(practice, one, two, code=5)
        assert (texts(out), err.count("its nonce was used before")) == (["a"], 1)

    def test_an_unconfirmed_pairing_is_said_to_be_one(self, practice: Practice) -> None:
        pairing = practice.built.pair(practice.praxis, "EXP-00900", "v2", state="pending", confirmed=False)
        wire = practice.built.message(pairing, "2026-09", "hola")
        assert ", PAIRING NOT CONFIRMED: nobody compared its check code" in self.read(practice, wire)[0]

    def test_from_a_file(self, practice: Practice, tmp_path: Path) -> None:
        (tmp_path / "chat").write_bytes(b"\xff " + practice.built.message(practice.v2, "2026-10", "hola").encode())
        assert texts(self.read(practice, more=("--in", str(tmp_path / "chat")))[0]) == ["hola"]

    def test_what_is_authentic_and_no_text(self, practice: Practice) -> None:
        wire = practice.built.message(practice.v2, "2026-10", b"\xff")
        assert "malformed: authentic, but not text" in self.read(practice, wire, code=5)[1]

    def test_no_message_at_all(self, practice: Practice) -> None:
        assert "error: no message in this text\n" in self.read(practice, "hola", code=5)[1]


class TestUsage:
    @pytest.mark.parametrize(
        "argv",
        [
            (),
            ("check",),
            ("open", "x", "--share", "y"),
            ("check", "VAULT"),
            ("check", "VAULT", "--share", "/nowhere"),
            ("check", "VAULT", "--share", "/"),
            ("log", "VAULT", "--share", "x", "--in", "y"),
            ("check", "VAULT", "--share", "x", "--month", "2026-10"),
            ("read", "VAULT", "--share", "x", "--month", "2026-13"),
            ("read", "VAULT", "--share", "x", "--in", "/nowhere"),
        ],
    )
    def test_wrong_usage(self, practice: Practice, argv: tuple[str, ...]) -> None:
        done = run(*(str(practice.file()) if word == "VAULT" else word for word in argv))
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 2

    def test_as_a_process_with_nothing_but_its_file(self, practice: Practice, tmp_path: Path) -> None:
        alone = tmp_path / "recover.py"
        alone.write_bytes(SCRIPT.read_bytes())
        command = [sys.executable, "-I", str(alone), "read", str(practice.file()), *practice.shares(2, 3)]
        wire = practice.built.message(practice.v2, "2026-11", "sólo esto")
        done = subprocess.run(command, input=wire.encode(), capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert texts(done.stdout.decode()) == ["sólo esto"]

    def test_without_cryptography_it_says_what_it_needs(self, tmp_path: Path) -> None:
        (tmp_path / "recover.py").write_bytes(SCRIPT.read_bytes())
        (tmp_path / "cryptography").mkdir()  # an older one, in the way of the one that is installed
        (tmp_path / "cryptography" / "__init__.py").touch()
        done = subprocess.run(
            [sys.executable, str(tmp_path / "recover.py")], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: this needs the Python package cryptography, 50 or newer\nhint: ")

    def test_it_needs_cryptography_and_nothing_else(self) -> None:
        names = set()
        for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        assert names - set(sys.stdlib_module_names) == {"cryptography"}

    def test_canonical_share_as_documented(self, practice: Practice) -> None:
        value = json.loads(practice.ceremony.share(1))
        assert canonical(value) + b"\n" == practice.ceremony.share(1)
        assert sorted(value) == ["audit_key", "ceremony", "of", "threshold", "vault", "version", "x", "y"]
