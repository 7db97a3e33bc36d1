"""Plaintext comes from strangers: what a terminal shows of it. Each test is a real terminal of a known width."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.cli.output import CONTINUED, FRAME, framed, table, visible
from tests.support.clinic import V2_PATIENT, Clinic, Terminal
from tests.support.command_line import CommandLine
from tests.support.softhsm import SoftHsm
from tests.support.store import write_lock

HEADER = f"── {V2_PATIENT} · 2026-11 · from the doctor (d) · message 1"


def read(clinic: Clinic, text: str, columns: int = 80) -> list[str]:
    """The lines that a terminal shows of a message."""
    terminal = clinic.terminal("decrypt", columns=columns, stdin=clinic.encrypt(text).encode())
    assert terminal.finish() == 0
    assert terminal.lines[-1] == ""
    return terminal.lines[:-1]


def test_a_plain_text_is_framed(clinic: Clinic) -> None:
    assert read(clinic, "Señora:\n\n\ttome 5 mg") == [HEADER, "│ Señora:", "│ ", "│ \ttome 5 mg"]


def test_commands_to_the_terminal_are_shown_and_not_obeyed(clinic: Clinic) -> None:
    hostile = "\x1b[2J\x1b]52;c;aGFjaw==\x07\x9b31m \x08\x7f\x00 a\rb\x0bc\x0cd"
    assert read(clinic, hostile) == [HEADER, r"│ \x1b[2J\x1b]52;c;aGFjaw==\x07\x9b31m \x08\x7f\x00 a\rb\x0bc\x0cd"]


def test_reading_direction_stays(clinic: Clinic) -> None:
    hostile = "dose \u202e005\u202c mg \u2067x\u2069 \u200f\u061c\ufeff"
    assert read(clinic, hostile) == [HEADER, r"│ dose \u202e005\u202c mg \u2067x\u2069 \u200f\u061c\ufeff"]


def test_a_forged_header_stays_behind_the_frame(clinic: Clinic) -> None:
    forged = f"── EXP-00112 · 2026-11 · from the patient (p) · message 2\n{' ' * 77}── EXP-00112 · 2026-11 · wrapped"
    shown = read(clinic, f"a\n{forged}", columns=80)
    assert [line for line in shown if line.startswith("──")] == [HEADER]
    assert all(line.startswith((FRAME, CONTINUED)) for line in shown[1:])
    assert all(len(line) < 80 for line in shown), "no line is left for the terminal to break"


def test_a_bad_message_is_an_error_like_any_other(clinic: Clinic) -> None:
    terminal = clinic.terminal("decrypt", stdin=b"[MEDCRYPT:v2:broken]")
    assert terminal.finish() == 5
    assert [line.partition(":")[0] for line in terminal.lines[:2]] == ["error", "hint"]


def test_results_go_to_a_file_and_words_to_the_terminal(clinic: Clinic) -> None:
    done = clinic.run("decrypt", stdin=clinic.encrypt("\x1b[2J"))
    assert done.stdout == "\x1b[2J", "exact where nobody looks at it"
    assert "\x1b" not in done.stderr


any_text = st.text(alphabet=st.characters(codec="utf-8"), max_size=200)


@given(any_text, st.one_of(st.none(), st.integers(20, 200)))
def test_no_text_leaves_its_frame(text: str, columns: int | None) -> None:
    lines = framed(text, columns)
    for line in lines:
        assert line.startswith((FRAME, CONTINUED))
        assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") and c != "\t" for c in line)
        if columns is not None and "\t" not in line:
            assert sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) < columns
    if columns is None:
        assert len(lines) == text.replace("\r\n", "\n").count("\n") + 1


@given(any_text)
def test_visible_text_is_one_line(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown


@pytest.mark.parametrize("plain", ["Señora", "日本語", "👩\u200d⚕", "نامه\u200cای", "a\u0301"])
def test_ordinary_writing_is_not_escaped(plain: str) -> None:
    assert visible(plain) == plain


def test_a_table_lines_up() -> None:
    text = table(("A", "B"), [("x", "1"), ("日本", "2"), ("a\nb", "3")])
    assert text == "A     B\nx     1\n日本  2\na\\nb  3\n"


def test_what_takes_long_is_said_at_a_terminal_and_gone_afterwards(medcrypt: CommandLine, softhsm: SoftHsm) -> None:
    """Another command holds the vault: this one waits for it, and tells the person. With the real clock: timed waits
    do not end under faketime."""
    vault = medcrypt.home / "vault" / "vault.db"
    medcrypt("--vault", vault, "vault", "create", "--token", f"doctor={softhsm.make_token()}")
    with write_lock(vault):
        command = medcrypt.command("--vault", vault, "patient", "list")
        terminal = Terminal(command, medcrypt.environment(), medcrypt.home, 100, None)
        terminal.expect("reading …")
    assert terminal.finish() == 0
    assert "reading …\r\x1b[K" in terminal.seen
    assert terminal.seen.rpartition("\x1b[K")[2] == "no patients yet: 'medcrypt patient add ID'\r\n"
