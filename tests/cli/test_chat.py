"""``medcrypt chat`` at a real terminal: paste and read, type and send, and what it leaves."""

from __future__ import annotations

import base64
import re
import time

from tests.support.clinic import V1_PATIENT, V2_PATIENT, Clinic

WIRE = re.compile(r"\[MEDCRYPT:v2:[^\]]+\]")


def clipboards(seen: str) -> list[str]:
    """What the terminal was told to put there, in turn."""
    return [base64.b64decode(text).decode() for text in re.findall(r"\x1b]52;c;([A-Za-z0-9+/=]*)\x07", seen)]


def test_a_message_is_read_and_answered(clinic: Clinic) -> None:
    long = "Señora:\n" + "x" * 2600
    (pasted,) = clinic.encrypt(long).splitlines()
    assert len(pasted) > 3500
    terminal = clinic.terminal("chat", V2_PATIENT)
    terminal.expect("'/quit'")
    terminal.expect("> ")
    terminal.type(f"[10:15, 22/11/2026] Paciente Ejemplo: {pasted} {'y' * 600}\n\n")  # more than a terminal's 4,096
    terminal.expect(f"── {V2_PATIENT} · 2026-11")
    terminal.expect("│ Señora:")
    terminal.expect("> ")
    terminal.type("Tome 5 mg.\nDra. Ejemplo\n\n")
    terminal.expect("on the clipboard for 45 seconds")
    terminal.expect("> ")
    terminal.type("/quit\n")
    assert terminal.finish() == 0
    reply, emptied = clipboards(terminal.seen)
    assert WIRE.fullmatch(reply)
    assert emptied == "", "nothing is left on the clipboard"
    assert reply in terminal.seen.replace("\r", "")
    assert clinic.run("decrypt", stdin=reply).stdout == "Tome 5 mg.\nDra. Ejemplo"
    assert not any(path.name.endswith("history") for path in clinic.directory.rglob("*"))
    actions = [entry["action"] for entry in clinic.run("--json", "audit", "show").json["entries"]]
    assert actions.count("message.encrypt") == 2


def test_what_is_wrong_is_said_and_the_conversation_goes_on(clinic: Clinic) -> None:
    good = clinic.encrypt("bien").strip()
    other = clinic.encrypt("de otra", V1_PATIENT).strip()
    terminal = clinic.terminal("chat", V2_PATIENT, "--idle", "2h")
    for pasted, shown in (
        (good.replace(":d:1.1:", ":p:1.1:"), "error: the message does not open"),
        ("[MEDCRYPT:v2:broken]", "error: "),
        (other, f"warning: that is a message of {V1_PATIENT}"),
        (good, "│ bien"),
    ):
        terminal.expect("> ")
        terminal.type(pasted + "\n\n")
        terminal.expect(shown)
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.finish() == 0
    assert "Traceback" not in terminal.seen


def test_it_ends_when_nobody_types(clinic: Clinic) -> None:
    terminal = clinic.terminal("chat", V2_PATIENT, "--idle", "1s")
    terminal.expect("> ")
    terminal.expect("nothing was typed for 1s")
    assert terminal.finish() == 0


def test_ctrl_c_ends_it_and_empties_the_clipboard(clinic: Clinic) -> None:
    terminal = clinic.terminal("chat", V2_PATIENT)
    terminal.expect("> ")
    terminal.type("Adiós\n\n")
    terminal.expect("on the clipboard")
    terminal.expect("> ")
    while terminal.process.poll() is None:  # one that comes as the line editor begins is not seen before the next
        terminal.type("\x03")
        time.sleep(0.2)
    assert terminal.finish() == 130
    assert clipboards(terminal.seen)[-1] == ""


def test_it_needs_a_terminal_and_a_patient(clinic: Clinic) -> None:
    assert "needs a terminal" in clinic.run("chat", V2_PATIENT, code=2).stderr
    assert clinic.run("--json", "chat", V2_PATIENT, code=2).error["error"] == "usage"
    for arguments in (("EXP-999",), (V2_PATIENT, "--idle", "soon"), (V2_PATIENT, "--idle", "9h")):
        assert clinic.terminal("chat", *arguments).finish() == 2
