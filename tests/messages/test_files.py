"""Files through a real vault: what is read and by whom, what the log tells, and that nothing is left of what failed."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import Failed, Malformed, MedcryptError, NonceReused, NotAuthentic, Refused, UsageError
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.store.atomic import Unfinished
from medcrypt_hsm.vault.store.surroundings import sync_directory
from scripts.standalone import patient
from tests.support.practice import Phone, Practice, unlocked
from tests.support.store import rows

BOTH_PROFILES = True
SCAN = bytes(range(256)) * 700  # three chunks
SECRET = "clinic-7-pairing-secret-2026"


def sent_by(
    phone: Phone, target: Path, content: bytes = SCAN, *, name: str = "scan.dcm", random: bytes | None = None,
    kind: str = "application/dicom",
) -> Path:  # fmt: skip
    """A file from the patient's program. Another call under the same ``random`` is what no honest program makes."""
    month, key = phone.state.writing_key(phone.clock.now)
    source = io.BytesIO(content)
    pieces = patient.seal_file(key, phone.state.pairing, month, "p", name, kind, source, random or os.urandom(51))
    target.write_bytes(b"".join(pieces))
    return target


def read_by(phone: Phone, path: Path) -> tuple[str, str, bytes]:
    with path.open("rb") as source:
        header = patient.FileHeader.parse(source.read(patient.FILE_HEADER))
        key = phone.state.reading_key(header.month, phone.clock.now, False)
        return patient.parse_metadata(b"".join(patient.open_file(key, header, source)))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "Befund Ñ.dcm"
    path.write_bytes(SCAN)
    return path


def log_of(vault: Vault, count: int) -> list[tuple[str, str, Any]]:
    """Action, outcome and detail of the newest entries but for that of this reading."""
    return [(entry.action, entry.outcome, entry.detail) for _, entry in vault.log.entries()[-count - 1 : -1]]


def refused(vault: Vault, path: Path, out: Path, **more: Any) -> str:
    """The error's name. Whatever it is, nothing is left."""
    before = sorted(out.iterdir())
    with pytest.raises(MedcryptError) as caught:
        vault.files.decrypt(path, out, **more)
    assert sorted(out.iterdir()) == before
    return caught.value.name


def test_both_ways(practice: Practice, scan: Path, out: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        for day in ("2026-11-22", "2026-12-31", "2027-01-01"):
            practice.clock.set(day)
            made = vault.files.encrypt("EXP-1", scan, out / f"{day}.mcf")
            assert (made.path, made.size, made.sender, made.status) == (out / f"{day}.mcf", len(SCAN), "d", "ok")
            assert made.path.stat().st_mode & 0o777 == 0o600
            phone.state.step_to(patient.Month.parse(day[:7]))
            assert read_by(phone, made.path) == ("Befund Ñ.dcm", "application/dicom", SCAN)
            done = vault.files.decrypt(sent_by(phone, out / "from phone"), out)
            assert (done.patient, done.month, done.sender, done.seen) == ("EXP-1", day[:7], "p", False)
            assert (done.name, done.media_type, done.size) == ("scan.dcm", "application/dicom", len(SCAN))
            assert done.path.read_bytes() == SCAN
            assert done.path.stat().st_mode & 0o777 == 0o600
            own = vault.files.decrypt(made.path, out)
            assert (own.sender, own.path.read_bytes()) == ("d", SCAN)
        assert sorted(path.name for path in out.iterdir() if path.name.startswith("scan")) == [
            "scan (2).dcm", "scan (3).dcm", "scan.dcm"
        ]  # fmt: skip
        vault.log.verify()


SIZES = [0, 1, 65535, 65536, 65537, 65536 - 25, 65536 - 26, 65536 - 27, 16 * 65536 - 26]


def test_sizes(practice: Practice, tmp_path: Path, out: Path) -> None:
    """Name and type take 26 bytes with their lengths: among these are whole chunks."""
    source = tmp_path / "12345.pdf"
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        for size in SIZES:
            source.write_bytes(SCAN[:1] * size)
            made = vault.files.encrypt("EXP-1", source, out / f"x{size}")
            assert read_by(phone, made.path) == ("12345.pdf", "application/pdf", source.read_bytes())
            assert vault.files.decrypt(made.path, out).path.read_bytes() == source.read_bytes()


def test_the_log(practice: Practice, scan: Path, out: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        made = vault.files.encrypt("EXP-1", scan, out / "a")
        vault.files.decrypt(made.path, out)
        vault.files.decrypt(made.path, out)
        forged = sent_by(phone, out / "b")
        forged.write_bytes(forged.read_bytes()[:-1])
        assert refused(vault, forged, out) == "not-authentic"
        encrypted, first, second, intent, failed = log_of(vault, 5)
        rows_told = [entry[2]["messages"][0]["messages"][0] for entry in (encrypted, first, second, intent, failed)]
        assert [row[:2] for row in rows_told] == [["d", "file"]] * 3 + [["p", "file"]] * 2
        assert [entry[:2] for entry in (encrypted, first, second, intent, failed)] == [
            ("message.encrypt", "done"),
            ("message.decrypt", "intended"),
            ("message.decrypt", "intended"),
            ("message.decrypt", "intended"),
            ("message.failed", "not-authentic"),
        ]
        assert rows_told[2][2] == rows_told[1][2] + " seen"
        assert failed[2]["messages"][0]["errors"] == ["not-authentic"]
        assert "Befund" not in repr(log_of(vault, 6)), "the log tells no names of files"
        vault.log.verify()


def test_a_file_is_seen_before(practice: Practice, out: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        path = sent_by(phone, out / "a")
        assert [vault.files.decrypt(path, out).status for _ in range(2)] == ["ok", "seen"]
        path.write_bytes(path.read_bytes()[:-1])
        assert refused(vault, path, out) == "not-authentic"
        assert len(rows(practice.path, "seen")) == 1, "a damaged copy makes nobody forget the whole one"
        vault.log.verify()


def test_a_damaged_copy_first_does_not_mark_the_whole_one_as_seen(practice: Practice, out: Path) -> None:
    with practice.open() as vault:
        path = sent_by(practice.pair(vault, "EXP-1"), out / "a")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert refused(vault, path, out) == "not-authentic"
        assert rows(practice.path, "seen") == []
        path.write_bytes(whole)
        assert vault.files.decrypt(path, out).status == "ok"


def test_a_nonce_of_another_file_or_message(practice: Practice, out: Path) -> None:
    with practice.open() as vault:
        phone, random = practice.pair(vault, "EXP-1"), os.urandom(51)
        vault.files.decrypt(sent_by(phone, out / "a", random=random), out)
        other = os.urandom(39) + random[39:]
        with pytest.raises(NonceReused):
            vault.files.decrypt(sent_by(phone, out / "b", random=other), out)
        with pytest.raises(NonceReused):
            vault.files.decrypt(sent_by(phone, out / "b", b"x", random=bytes([1]) + random[1:]), out)
        (message,) = vault.decrypt(phone.seal("x", nonce=random[39:]))
        assert message.status == "nonce-reused"
        vault.log.verify()


def test_months(practice: Practice, out: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        path, november = sent_by(phone, out / "a"), Month.parse("2026-11")
        practice.clock.set("2026-12-07 23:59")
        assert vault.files.decrypt(path, out).month == "2026-11"
        practice.clock.set("2026-12-08 00:00")
        assert refused(vault, path, out) == "month-stale"
        assert refused(vault, path, out, month=Month.parse("2026-10")) == "month-stale"
        assert vault.files.decrypt(path, out, archive=True).month == "2026-11"
        assert vault.files.decrypt(path, out, month=november).month == "2026-11"
        practice.clock.set("2027-01-15")
        vault.months.open(to=Month.parse("2027-01"))
        vault.months.shred([november])
        assert refused(vault, path, out, archive=True) == "shredded"
        practice.clock.set("2027-02-01")
        early = sent_by(phone, out / "b")
        practice.clock.set("2027-01-30 23:59")
        assert refused(vault, early, out) == "month-future"
        practice.clock.set("2027-01-31 12:00")
        assert vault.files.decrypt(early, out).month == "2027-02"
        vault.log.verify()


def test_whose_files_are_none_of_ours(practice: Practice, scan: Path, out: Path, tmp_path: Path) -> None:
    with practice.open() as vault:
        with pytest.raises(UsageError):
            vault.files.encrypt("EXP-404", scan, out / "x")
        vault.patients.add("EXP-V1", protocol="v1", secret=SECRET)
        with pytest.raises(Refused, match="version 1, which has no files") as caught:
            vault.files.encrypt("EXP-V1", scan, out / "x")
        assert "patient add EXP-V1" in caught.value.hint
        waiting = practice.pair(vault, "EXP-2", confirm=False)
        with pytest.raises(Refused):
            vault.files.encrypt("EXP-2", scan, out / "x")
        path = sent_by(waiting, tmp_path / "a")
        assert refused(vault, path, out) == "unconfirmed"
        keys = waiting.state.message_keys
        unknown = patient.PatientState(b"nobody..", "000000", waiting.state.month, bytes(32), keys)
        stranger = Phone(unknown, practice.clock)
        assert refused(vault, sent_by(stranger, tmp_path / "b"), out) == "unknown-pairing"
        assert list(out.iterdir()) == []
        vault.log.verify()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a byte of the header": lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:],
    "a byte of the first chunk": lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:],
    "a byte of the last chunk": lambda b: b[:-20] + bytes([b[-20] ^ 1]) + b[-19:],
    "cut off": lambda b: b[:-1000],
    "cut off between chunks": lambda b: b[: 93 + 2 * 65552],
    "chunks exchanged": lambda b: b[:93] + b[93 + 65552 : 93 + 2 * 65552] + b[93 : 93 + 65552] + b[93 + 2 * 65552 :],
    "a chunk twice": lambda b: b[: 93 + 65552] + b[93:],
    "something behind it": lambda b: b + b"x" * 100,
    "twice": lambda b: b + b,
    "the header of another version": lambda b: b[:14] + b"\3" + b[15:],
    "a message": lambda b: b"[MEDCRYPT:v2:",
    "nothing": lambda b: b"",
}


def test_damage_leaves_nothing(practice: Practice, out: Path, tmp_path: Path) -> None:
    with practice.open() as vault:
        path = sent_by(practice.pair(vault, "EXP-1"), tmp_path / "a")
        whole = path.read_bytes()
        for what, damage in DAMAGE.items():
            path.write_bytes(damage(whole))
            assert refused(vault, path, out) in ("not-authentic", "malformed"), what
        assert rows(practice.path, "seen") == []
        vault.log.verify()


def test_authentic_and_without_a_name(practice: Practice, out: Path) -> None:
    with practice.open() as vault:
        path = sent_by(practice.pair(vault, "EXP-1"), out / "a", kind="text")
        with pytest.raises(Malformed, match="media type"):
            vault.files.decrypt(path, out)
        assert log_of(vault, 1)[0][1] == "malformed"


def test_names_stay_inside(practice: Practice, out: Path, tmp_path: Path) -> None:
    """What becomes of each: tests/messages/test_filenames.py."""
    outside = {tmp_path / "a", *(path for path in tmp_path.rglob("*") if not path.is_relative_to(out))}
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        for name in ("../../escaped", str(tmp_path / "escaped"), ".hidden", "a\x1b[2Jb", "-rf", "CON", "x" * 255):
            done = vault.files.decrypt(sent_by(phone, tmp_path / "a", name=name), out)
            assert (list(out.iterdir()), done.name) == ([done.path], name)
            done.path.unlink()
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)} <= outside


def test_nothing_is_overwritten_and_no_link_followed(practice: Practice, scan: Path, out: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (out / "scan.dcm").symlink_to(target)
    (out / "scan (2).dcm").write_text("mine")
    (out / "scan (3).dcm").mkdir()
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        done = vault.files.decrypt(sent_by(phone, tmp_path / "a"), out)
        assert (done.path.name, (out / "scan (2).dcm").read_text()) == ("scan (4).dcm", "mine")
        for taken in ("scan.dcm", "scan (2).dcm", "scan (3).dcm"):
            with pytest.raises(UsageError, match="exists already"):
                vault.files.encrypt("EXP-1", scan, out / taken)
        assert not target.exists()
        assert len(list(out.iterdir())) == 4
        vault.log.verify()


def test_inputs_that_are_no_files(practice: Practice, out: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with practice.open() as vault, socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        practice.pair(vault, "EXP-1")
        for name in ("fifo", "s", "out", "missing"):
            with pytest.raises(UsageError):
                vault.files.encrypt("EXP-1", tmp_path / name, out / "x")
            with pytest.raises(UsageError):
                vault.files.decrypt(tmp_path / name, out)
        for place in (out / "no such", tmp_path / "fifo"):
            with pytest.raises(UsageError):
                vault.files.decrypt(tmp_path / "fifo", place)
    assert list(out.iterdir()) == []


class TestBrokenOff:
    """By the progress that a person watches: what it raises comes from the midst of the work."""

    def test_by_a_person(self, practice: Practice, scan: Path, out: Path, tmp_path: Path) -> None:
        def stop(done: int, total: int) -> None:
            assert 0 < done <= total
            assert [path.name.startswith("medcrypt-not-whole-") for path in out.iterdir()] == [True]
            raise KeyboardInterrupt

        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            path = sent_by(phone, tmp_path / "a")
            with pytest.raises(KeyboardInterrupt):
                vault.files.encrypt("EXP-1", scan, out / "x", stop)
            with pytest.raises(KeyboardInterrupt):
                vault.files.decrypt(path, out, stop)
            assert list(out.iterdir()) == []
            assert rows(practice.path, "seen") == []
            assert [entry[:2] for entry in log_of(vault, 4)] == [
                ("message.encrypt", "done"),
                ("message.failed", "interrupted"),
                ("message.decrypt", "intended"),
                ("message.failed", "interrupted"),
            ]
            assert vault.files.decrypt(path, out).status == "ok"
            vault.log.verify()

    @pytest.mark.parametrize("change", ["longer", "shorter", "rewritten"])
    def test_by_a_source_that_changes(self, practice: Practice, scan: Path, out: Path, change: str) -> None:
        def write(done: int, total: int) -> None:
            if change == "longer":
                with scan.open("ab") as file:
                    file.write(b"x")
            elif change == "shorter":
                os.truncate(scan, 5)
            else:
                os.utime(scan, ns=(0, 1))

        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            with pytest.raises(Failed, match="changed while it was read"):
                vault.files.encrypt("EXP-1", scan, out / "x", write)
            assert list(out.iterdir()) == []
            assert log_of(vault, 1)[0][:2] == ("message.failed", "failed")
            vault.log.verify()

    def test_by_a_lost_directory(self, practice: Practice, out: Path, tmp_path: Path) -> None:
        def move(done: int, total: int) -> None:
            if out.exists():
                out.rename(tmp_path / "moved")

        with practice.open() as vault:
            path = sent_by(practice.pair(vault, "EXP-1"), tmp_path / "a")
            with pytest.raises(Failed, match="nothing was written"):
                vault.files.decrypt(path, out, move)
            assert log_of(vault, 1)[0][:2] == ("message.failed", "failed")
            vault.log.verify()


def test_what_a_killed_run_left_goes_and_what_another_writes_stays(out: Path) -> None:
    left = out / "medcrypt-not-whole-01234567.partial"
    left.write_text("left")
    other = out / "medcrypt-not-whole-x.partial"
    other.write_text("a person's")
    (out / "medcrypt-not-whole-00000000.partial").symlink_to(other)
    with Unfinished(out) as running:
        assert not left.exists()
        with Unfinished(out) as second:
            assert running.path.exists()
            second.out.write(b"whole")
            assert second.name(["whole"]).read_bytes() == b"whole"
    sync_directory(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "medcrypt-not-whole-00000000.partial", other.name, "whole"
    ]  # fmt: skip


def test_it_can_be_told_from_the_text_of_a_message(practice: Practice, scan: Path, out: Path) -> None:
    """The key of a file does not pass for a message, nor a message for a file."""
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        header = patient.FileHeader.parse(vault.files.encrypt("EXP-1", scan, out / "a").path.read_bytes()[:93])
        pairing, month = patient.b64(header.pairing), str(header.month)
        sealed = header.sealed_key
        fields = (patient.b64(header.nonce), patient.b64(sealed[:-16]), patient.b64(sealed[-16:]))
        text = f"[MEDCRYPT:v2:{pairing}:{month}:d:1.1:{':'.join(fields)}]"
        assert vault.decrypt(text)[0].status == "not-authentic"
        assert isinstance(vault.decrypt(text)[0].error, NotAuthentic)
        with pytest.raises(patient.Problem):
            phone.read(text)
        assert unlocked(vault).file.seen_count(header.pairing, month) == 1
