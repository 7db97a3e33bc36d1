"""Names that strangers choose: where they would lead, and what becomes of them; by both programs alike."""

from __future__ import annotations

import itertools
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.messages.filenames import numbered, safe_name
from scripts.standalone import patient

NAMES = [
    ("lab.pdf", "lab.pdf"),
    ("Análisis de Ana.PDF", "Análisis de Ana.PDF"),
    ("/etc/passwd", "passwd"),
    ("../../.ssh/authorized_keys", "authorized_keys"),
    ("..\\..\\Startup\\x.lnk", "x.lnk"),
    ("C:\\x.txt", "x.txt"),
    ("C:x.txt", "C_x.txt"),
    ("..", "file"),
    (".", "file"),
    ("/", "file"),
    ("a/", "file"),
    (" . . ", "file"),
    (".bashrc", "bashrc"),
    ("...hidden", "hidden"),
    ("x.txt. . ", "x.txt"),
    ("a\x00b\nc\x1b[31m\x7f\x85.txt", "a_b_c_[31m__.txt"),
    ("gpj.\u202eexe.jpg", "gpj._exe.jpg"),
    ("a\u2066b\u200ec\ufeffd\u2028e", "a_b_c_d_e"),
    ("نامه\u200cها.txt", "نامه\u200cها.txt"),
    (".\u200dx\u200d ", "x"),
    ("\U0001f468\u200d\u2695\ufe0f.jpg", "\U0001f468\u200d\u2695\ufe0f.jpg"),
    ("a\u00a0b\u3000c.txt", "a b c.txt"),
    ("a\ue000\U000e0041\u0378.txt", "a___.txt"),
    ('<a>:"|?*.txt', "_a______.txt"),
    ("file.txt:stream", "file.txt_stream"),
    ("CON", "_CON"),
    ("con.txt", "_con.txt"),
    ("Aux .tar.gz", "_Aux .tar.gz"),
    ("com1", "_com1"),
    ("LPT³.x", "_LPT³.x"),
    ("conin$", "_conin$"),
    ("COM10.txt", "COM10.txt"),
    ("console.txt", "console.txt"),
    ("-rf", "_-rf"),
    ("--out=x", "_--out=x"),
    ("~", "~"),
    ("medcrypt-not-whole-01234567.partial", "_medcrypt-not-whole-01234567_partial"),
    ("e\u0301.txt", "\u00e9.txt"),
    ("x" * 255 + "", "x" * 200),
    ("ñ" * 120 + ".pdf", "ñ" * 98 + ".pdf"),
    # Beside a vault these would be taken for its own: SQLite rolls a journal back into the file that it is named after.
    ("vault.db-journal", "vault.db_journal"),
    ("vault.db-WAL", "vault.db_WAL"),
    ("vault.db-shm", "vault.db_shm"),
    ("vault.db-mj0A1B2C3D", "vault.db_mj0A1B2C3D"),
    ("vault.db-notes", "vault.db_notes"),
    ("vault.db-notes-0a1b2c", "vault.db_notes-0a1b2c"),
    ("vault.db-backup-2", "vault.db_backup-2"),
    ("vault.db-certificate-2.json", "vault.db_certificate-2.json"),
    ("vault.db-session", "vault.db_session"),
    ("vault.db.partial", "vault.db_partial"),
    ("x-journal (2)", "x-journal (2)"),
    ("journal.pdf", "journal.pdf"),
    ("x" * 192 + "-journal.pdf" + "y" * 20, "x" * 192 + "_journal"),
    ("CON .txt", "_CON .txt"),
    ("x" * 190 + "." + "y" * 40, "x" * 190 + "." + "y" * 9),
]


@pytest.mark.parametrize(("name", "safe"), NAMES)
def test_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert patient.safe_name(name) == safe


@given(
    st.text(max_size=80)
    | st.text("./\\ -_:\u202e\u200dCONcon1.²é", max_size=260)
    | st.from_regex(r"x{180,200}-(journal|notes)(-[0-9a-f]{1,20})?(\.json)?", fullmatch=True)
)
def test_no_name_leads_anywhere(name: str) -> None:
    safe = safe_name(name)
    assert safe == patient.safe_name(name)
    assert safe == os.path.basename(safe) == unicodedata.normalize("NFC", safe)
    assert 1 <= len(safe.encode()) <= 200 + 3
    assert not safe.startswith((".", "-", " ", "medcrypt-not-whole-"))
    assert not safe.endswith((".", " "))
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in safe)
    assert safe_name(safe) == safe


@pytest.mark.parametrize(("name", "second"), [
    ("lab.pdf", "lab (2).pdf"), ("x", "x (2)"), ("a.tar.gz", "a.tar (2).gz"), (f"x.{'y' * 20}", f"x.{'y' * 20} (2)"),
])  # fmt: skip
def test_a_name_that_is_taken(name: str, second: str) -> None:
    first, then, third = itertools.islice(numbered(name), 3)
    assert (first, then) == (name, second)
    assert third == second.replace("(2)", "(3)")
