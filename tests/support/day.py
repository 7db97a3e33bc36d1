"""A doctor's day at a terminal: the real program on SoftHSM2, recorded as docs/day.cast and shown in the guide.

``scripts/record-day`` (``python -m tests.support.day``) records it anew, and copies the outputs into the guide. A bash
runs in a pseudo-terminal, and every process in it has the clock of the recording: it stands still until the person who
types has paused, and goes on by that pause. Nobody waits for the pauses; they are computed. The practice, the patient's
phone and a bus on which a desktop could say that the screen is locked are made anew each time, and thrown away.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from medcrypt_hsm.session.dbus import _DESTINATION, _INTERFACE, _MEMBER, _PATH, Bus
from medcrypt_hsm.session.screen import LOGIND
from tests.support.checkout import ROOT
from tests.support.clinic import V2_PATIENT, Clinic, Terminal
from tests.support.clock import faketime_library
from tests.support.phone import Device
from tests.support.session_desk import DBus, wait
from tests.support.softhsm import USER_PIN

CAST = ROOT / "docs" / "day.cast"
GUIDE = ROOT / "docs" / "operator" / "doctor.md"
TITLE = "medcrypt: a doctor's day"
COLUMNS, ROWS = 110, 40
BEFORE, MORNING = "2026-11-25 07:55:00", datetime.fromisoformat("2026-11-25 08:30:00")
PLACE = "/tmp/medcrypt-day"  # what the recording calls its directory, whose name has a random end
PROMPT = "\n$ "
Event = tuple[float, str]


@dataclass
class Person:
    """Types at a terminal and reads from it; ``events`` are what the terminal showed, and when."""

    terminal: Terminal
    clock: Path
    events: list[Event] = field(default_factory=list)
    now: float = 0.0  # of the recording
    _ahead: timedelta = timedelta(0)  # what the day has gone on while nothing was recorded
    _shown: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random("a doctor's day"))

    def wait(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 3)
        set_clock(self.clock, MORNING + self._ahead + timedelta(seconds=self.now))

    def later(self, hours: float) -> None:
        self._ahead += timedelta(hours=hours)
        self.wait(2)

    def type(self, text: str) -> None:
        for char in text:
            self.wait(self._random.uniform(0.03, 0.13))
            self.terminal.type(char)
            self.terminal.expect(char)
            self._show()

    def paste(self, text: str, shown: str) -> None:
        self.wait(1.2)
        self.terminal.type(text)
        self.terminal.expect(shown)
        self._show()

    def press(self, key: str, shown: str) -> None:
        """A key, and what the screen must show then; it is read before anything else is done."""
        self.wait(0.5)
        self.terminal.type(key)
        self.terminal.expect(shown)
        self.wait(0.4)
        self._show()
        self.wait(min(0.6 + 0.4 * self.events[-1][1].count("\n"), 5))

    def secret(self, text: str, shown: str) -> None:
        self.wait(2)
        self.press(text + "\n", shown)

    def run(self, command: str, shown: str = PROMPT) -> None:
        self.type(command)
        self.press("\n", shown)

    def _show(self) -> None:
        if new := self.terminal.seen[self._shown :]:
            self.events.append((self.now, new))
            self._shown += len(new)


def set_clock(clock: Path, moment: datetime) -> None:
    (fresh := clock.with_suffix(".new")).write_text(f"{moment:%Y-%m-%d %H:%M:%S}\n")
    fresh.replace(clock)  # whole, whoever reads it meanwhile


@contextmanager
def desk() -> Iterator[tuple[Person, Clinic, Device]]:
    """A practice with one patient, whose phone is paired, and somebody at a shell there."""
    directory = Path(tempfile.mkdtemp(prefix=f"{Path(PLACE).name}.", dir=Path(PLACE).parent))
    try:
        clinic = Clinic.at(directory)
        clinic.run.now = BEFORE
        clinic.run.softhsm.prepare().make_token("doctor")
        clinic.run("vault", "create", "--token", f"doctor={clinic.uri}")
        phone = Device(directory / "phone")
        added = clinic.run("--json", "patient", "add", V2_PATIENT, "--label", "Paciente Ejemplo").json
        clinic.run("patient", "confirm", V2_PATIENT, phone.pair(BEFORE, added["payload"]))
        bus = DBus(directory)
        desktop = Bus(bus.address)
        name = {_PATH: "/org/freedesktop/DBus", _INTERFACE: "org.freedesktop.DBus", _MEMBER: "RequestName",
                _DESTINATION: "org.freedesktop.DBus"}  # fmt: skip
        desktop.send(1, name, LOGIND, 0)
        wait(lambda: desktop.call("NameHasOwner", LOGIND), 5)
        person = Person(Terminal(*shell(clinic, bus), COLUMNS, None), directory / "clock")
        try:
            person.terminal.expect("$ ")
            person._show()
            yield person, clinic, phone
            person.terminal.type("exit\n")
            assert person.terminal.finish() == 0
        finally:
            clinic.run("session", "lock", env=there(clinic))
            desktop.close()
            bus.stop()
    finally:
        shutil.rmtree(directory)


def shell(clinic: Clinic, bus: DBus) -> tuple[list[str], dict[str, str], Path]:
    clock, runtime = clinic.directory / "clock", clinic.directory / "run"
    runtime.mkdir(mode=0o700)
    set_clock(clock, MORNING)
    env = clinic.run.environment() | {
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "LD_PRELOAD": str(faketime_library()),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PS1": "$ ",
        "TERM": "xterm-256color",
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_SESSION_ID": "7",
        "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
        "DBUS_SESSION_BUS_ADDRESS": bus.address,
    }
    del env["FAKETIME"], env["MEDCRYPT_PIN_SOURCE"]
    # The terminal itself echoes what is typed, and not a line editor with colours and key bindings of this machine.
    command = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
    return command, env, clinic.directory / "home"


def picture() -> bytes:
    """A laboratory's picture: a grey PNG of 400 x 300 noise, the same each time."""
    noise = random.Random("laboratory")
    rows = b"".join(b"\0" + noise.randbytes(400) for _ in range(300))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 400, 300, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def day(person: Person, clinic: Clinic, phone: Device) -> None:
    """Everything that is typed. What the patient sent is there when it begins."""
    home, at = clinic.run.home, BEFORE
    question = phone.write(at, "Buenos días, doctora. Amanecí con 38 de fiebre.").strip()
    second = phone.write(at, "¿Sigo con las gotas?").strip()
    third = phone.write(at, "Sí, y me duele la garganta.").strip()
    old = [phone.write(at, text).strip() for text in ("¿A qué hora es mi cita?", "Gracias, ahí estaré.")]
    answer = clinic.encrypt("A las 10, el lunes. Dra. Ejemplo").strip()
    (laboratory := clinic.directory / "laboratorio.png").write_bytes(picture())
    phone("write-file", at, str(laboratory), str(home / "received.mcf"))
    (home / "dieta.pdf").write_bytes(b"%PDF-1.7\n" + b"% Dieta de ejemplo\n" * 2000)
    chat = zip(("Paciente Ejemplo", "Dra. Ejemplo", "Paciente Ejemplo"), (old[0], answer, old[1]), strict=True)
    lines = [f"[24/11/26, 18:0{minute}:12] {name}: {text}\r\n" for minute, (name, text) in enumerate(chat)]
    (home / "_chat.txt").write_text("[24/11/26, 18:00:01] Paciente Ejemplo: Hola\r\n" + "".join(lines), newline="")

    person.run("# 08:30. The PIN, once.")
    person.run("medcrypt session start", "PIN of")
    person.secret(USER_PIN, PROMPT)
    person.run("medcrypt status")
    person.run("# What came overnight: copied from the chat, pasted here, Ctrl-D.")
    person.run("medcrypt decrypt", "in a new line:")
    for minute, wire in ((2, question), (3, second)):
        person.paste(f"[8:0{minute}, 25/11/2026] Paciente Ejemplo: {wire}\n", wire[-30:])
    person.press("\x04", PROMPT)
    person.run("# The answer, and a conversation while the patient is there.")
    person.run(f"medcrypt chat {V2_PATIENT}", "> ")
    person.type("Una más hoy. ¿Tiene tos?")
    person.press("\n", "… ")
    person.press("\n", "> ")
    person.paste(f"\x1b[200~[8:34, 25/11/2026] Paciente Ejemplo: {third}\x1b[201~", third[-20:])
    person.press("\n", "… ")
    person.press("\n", "> ")
    person.type("/quit")
    person.press("\n", "$ ")
    person.run("# A picture from the laboratory came as a document; a diet goes back as one.")
    person.run("medcrypt decrypt-file received.mcf")
    person.run(f"medcrypt encrypt-file {V2_PATIENT} dieta.pdf to-send.mcf")
    person.run("# Yesterday's chat, exported, for the patient's record.")
    person.run("medcrypt import whatsapp _chat.txt --out conversation.html")
    person.run("medcrypt session status")
    person.later(8.45)
    wait(lambda: not clinic.run("--json", "session", "status", env=there(clinic)).json["running"], 10)
    person.run("# 17:00. Nothing was done for 15 minutes: the session has ended by itself.")
    person.run("medcrypt session status")
    person.run("medcrypt session start --idle 1h", "PIN of")
    person.secret(USER_PIN, PROMPT)
    person.run("# Is all well? With the token's name the vault is verified.")
    person.run("medcrypt status --token doctor")
    person.run("# Going home.")
    person.run("medcrypt session lock")
    person.wait(2)


def there(clinic: Clinic) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(clinic.directory / "run")}


def record() -> str:
    """A new recording, as an asciicast."""
    with desk() as (person, clinic, phone):
        day(person, clinic, phone)
        events = person.events
        place = str(clinic.directory)
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": TITLE, "idle_time_limit": 3}
    lines = [header, *([moment, "o", harmless(text).replace(place, PLACE)] for moment, text in events)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def harmless(text: str) -> str:
    """Without what would go to the clipboard of whoever plays it."""
    return re.sub(r"\x1b\]52;[^\x07]*\x07", "", text)


def screen(cast: str) -> str:
    """The text that a recording leaves on the screen: no control sequences, no line that was overwritten."""
    text = "".join(json.loads(line)[2] for line in cast.splitlines()[1:])
    text = re.sub(r"[^\n]*(?:\x1b\[A)+\r(?:\x1b\[C){2}", "> ", text)  # what was pasted is marked, then drawn again
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x04\b]", "", text).replace("\r\n", "\n")
    return re.sub(r"[^\r\n]*\r", "", text)


def steps(text: str) -> list[tuple[str, str]]:
    """Each command that a screen or a guide shows, in turn, and what is under it."""
    found = re.findall(r"^\$ ([^#\n][^\n]*)\n(.*?)(?=^\$|^```|\Z)", text, re.MULTILINE | re.DOTALL)
    return [(command, re.sub(r"(?m) +$", "", output).strip("\n")) for command, output in found]


def blocks(guide: str) -> Iterator[re.Match[str]]:
    return re.finditer(r"^```console\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)


def shortened(text: str) -> str:
    """As the guide shows it: nobody reads a wire text."""
    return re.sub(r"\[MEDCRYPT:v2:[^\]]*\]", "[MEDCRYPT:v2:…]", text)


def refill(guide: str, cast: str) -> str:
    """The guide with the outputs of this recording, whose commands it shows in the same order."""
    fresh = iter(steps(shortened(screen(cast))))
    for block in list(blocks(guide)):
        parts = []
        for wanted, _ in steps(block[1]):
            output = next(output for command, output in fresh if command == wanted)
            parts.append(f"$ {wanted}\n{output}".strip("\n"))
        guide = guide.replace(block[0], "```console\n" + "\n\n".join(parts) + "\n```", 1)
    return guide


if __name__ == "__main__":
    CAST.write_text(record())
    GUIDE.write_text(refill(GUIDE.read_text(), CAST.read_text()))
