"""No secret is anywhere but in its one place: every output, file, log and process of a whole practice is searched.

The command line at its highest verbosity here; the library from the inside in test_secrets_inside.py. A secret that is
shown on purpose has exactly one place, and each such place is named: ``shown=``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command_line import PIN_VARIABLE, SO_PIN_VARIABLE, CommandLine
from tests.support.phone import PASSPHRASE, Device
from tests.support.practice import forge
from tests.support.secret_search import Secrets, Watched, tree, wal_kept
from tests.support.softhsm import SoftHsm, softhsm_module

ANA, BENITO, CARMEN = "EXP-ANA-7781930", "EXP-BENITO-4410277", "EXP-CARMEN-9920164"
LABEL = "Ana Sofía Quetzalcóatl-Ibáñez"
LAST_MONTH = "2027-02"
EXPORTS = "jsonl", "csv", "cef"
DAYS = "2026-11-20", "2026-12-03", "2027-02-04"
TEXTS = {
    "doctor to Ana": "Impresión: lupus eritematoso sistémico, SLEDAI 4; hidroxicloroquina 200 mg cada 12 h",
    "doctor to Benito": "La biopsia renal confirma nefritis lúpica clase IV; comenzamos micofenolato",
    "Ana to doctor": "Doctora, desde ayer tengo fiebre de 38.9 y me duele orinar; ¿debo ir a urgencias?",
    "Ana in December": "Quetiapina suspendida como me dijo; duermo mal pero sin alucinaciones\nGracias",
    "doctor in February": "Prueba de VIH no reactiva; repetir en tres meses por ventana inmunológica",
}


@dataclass
class Clinic:
    """The practice, its secrets, and every command that was run."""

    root: Path
    watched: Watched
    secrets: Secrets
    ana: Device
    chat: dict[str, str] = field(default_factory=dict)
    # Also beside the vault, where the write-ahead log's content is gone when the flow ends.
    middle: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def vault(self) -> Path:
        return self.root / "practice" / "vault.db"

    def look_at_files(self, when: str) -> None:
        self.middle.append((when, tree(self.root)))


def test_nothing_slips_out_of_the_command_line(tmp_path: Path) -> None:
    clinic = _clinic(tmp_path)
    _set_up(clinic)
    with wal_kept(clinic.vault):
        _first_day(clinic)
        clinic.look_at_files("after the first day")
        wal = clinic.middle[-1][1]["practice/vault.db-wal"]
        assert len(wal) > 20_000, "the write-ahead log was not there to be searched"
        _another_month(clinic)
        clinic.look_at_files("after the month opened")
        assert clinic.middle[-1][1]["practice/vault.db-wal"].startswith(wal)
    _last_day(clinic)
    clinic.look_at_files("at the end")

    assert _leaks(clinic) == []


def _clinic(tmp_path: Path) -> Clinic:
    root, outside = tmp_path / "machine", tmp_path / "outside"
    for directory in (outside, root, root / "home", root / "tmp"):
        directory.mkdir(mode=0o700)
    pins = {name: f"{name}-{secrets.token_hex(6)}" for name in ("pin", "so-pin", "new-pin", "wrong-pin", "v1-key")}
    environment = {
        "TMPDIR": str(root / "tmp"),
        "MEDCRYPT_VAULT": str(root / "practice" / "vault.db"),
        PIN_VARIABLE: pins["pin"],
        SO_PIN_VARIABLE: pins["so-pin"],
        "NEW_PIN": pins["new-pin"],
        "WRONG_PIN": pins["wrong-pin"],
        "V1_SECRET": pins["v1-key"],
    }
    medcrypt = CommandLine(root / "home", SoftHsm(root / "softhsm").prepare(), environment)
    known = Secrets()
    for name, pin in pins.items():
        known.add_word(name, pin)
    known.add_word("passphrase", PASSPHRASE)
    for name, text in TEXTS.items():
        known.add_text(name, text)
    for month in ("2026-11", "2026-12", "2027-01", "2027-02"):
        known.add_key(f"v1 message key {month}", _v1_key(pins["v1-key"], month))
    return Clinic(root, Watched(medcrypt, outside), known, Device(root / "home" / "ana.state"))


def _v1_key(secret: str, month: str) -> bytes:
    salt = hmac.digest(secret.encode(), month.encode(), "sha256")[:16]
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 600_000, 32)


def _set_up(clinic: Clinic) -> None:
    run, clinic.watched.medcrypt.now = clinic.watched, f"{DAYS[0]} 09:00:00"
    module = f"module-path={softhsm_module()}"
    uri = f"pkcs11:token=doctor?{module}"
    so_pin = ("--so-pin-source", f"env:{SO_PIN_VARIABLE}")
    run("token", "init", f"pkcs11:?{module}", "--label", "doctor", *so_pin)
    run("token", "list")
    run("token", "check", uri)
    run("vault", "create", "--token", f"doctor={uri}")
    run("token", "check", uri)


def _first_day(clinic: Clinic) -> None:
    run, known, chat = clinic.watched, clinic.secrets, clinic.chat
    payload = _pair(clinic, "patient", "add", ANA, "--label", LABEL, secret="Ana's pairing")
    code = clinic.ana.pair(f"{DAYS[0]} 09:01:00", payload)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    run("patient", "confirm", ANA, wrong, code=5)
    run("patient", "confirm", ANA, code)
    run(
        *("patient", "add", BENITO, "--protocol", "v1", "--secret-source", "env:V1_SECRET", "--qr", "benito.png"),
        shown=["v1-key"],
    )
    _pair(clinic, "--json", "patient", "add", CARMEN, "--qr", "carmen.svg", secret="Carmen's pairing")
    # The code can be drawn again until it is confirmed; that output, too, is for the phone.
    again = run("patient", "qr", CARMEN, shown=["Carmen's pairing", "Carmen's pairing, message key 2026-11"])
    assert again.stdout.startswith("MEDCRYPT:P2:")
    run("--json", "patient", "list")
    run("patient", "show", ANA)

    chat["to Ana"] = run("encrypt", ANA, stdin=TEXTS["doctor to Ana"]).stdout
    chat["to Benito"] = run("--json", "encrypt", BENITO, stdin=TEXTS["doctor to Benito"]).json["messages"][0]
    assert clinic.ana.read(f"{DAYS[0]} 09:02:00", chat["to Ana"]) == TEXTS["doctor to Ana"]
    chat["from Ana"] = clinic.ana.write(f"{DAYS[0]} 09:02:00", TEXTS["Ana to doctor"])
    everything = "\n".join(chat.values())
    shown = ["doctor to Ana", "doctor to Benito", "Ana to doctor"]
    assert TEXTS["Ana to doctor"] in run("decrypt", stdin=everything, shown=shown).stdout
    run("--json", "decrypt", stdin=everything + forge(chat["from Ana"].strip()), shown=shown, code=5)
    run("decrypt", stdin=forge(chat["from Ana"].strip()), code=5)
    run("decrypt", stdin=chat["to Benito"].replace("v1", "v3"), code=5)
    for wrong_place in ("status", "audit"):
        command = (wrong_place,) if wrong_place == "status" else ("audit", "show")
        run(*command, "--token", "doctor", "--pin-source", "env:WRONG_PIN", code=4)
    # A PIN in the wrong place is not repeated.
    run("status", "--token", "doctor", "--pin-source", known_word(known, "wrong-pin"), code=2)
    run("vault", "backup", clinic.root / "backup-1.db")


def known_word(known: Secrets, name: str) -> str:
    word = next(form for form in known.forms[name] if form.startswith(f"{name}-".encode()))
    return word.decode()


def _pair(clinic: Clinic, *args: str, secret: str) -> str:
    """Add a patient. The payload is shown here, this once."""
    done = clinic.watched(*args)
    payload = re.findall(r"MEDCRYPT:P2:[A-Z2-7]{76}", done.stdout)
    assert len(payload) == 1
    clinic.secrets.add_pairing(secret, payload[0], LAST_MONTH)
    clinic.watched.runs[-1].shown = (secret,)
    return str(payload[0])


def _another_month(clinic: Clinic) -> None:
    run, chat = clinic.watched, clinic.chat
    run.medcrypt.now = f"{DAYS[1]} 09:00:00"
    chat["Ana in December"] = clinic.ana.write(run.medcrypt.now, TEXTS["Ana in December"])
    opened = run("decrypt", stdin=chat["Ana in December"], shown=["Ana in December"])
    assert opened.stdout == TEXTS["Ana in December"]
    assert "opened 2026-12" in opened.stderr
    run("encrypt", BENITO, stdin=TEXTS["doctor to Benito"])
    run("audit", "anchor")


def _last_day(clinic: Clinic) -> None:
    run, chat = clinic.watched, clinic.chat
    run.medcrypt.now = f"{DAYS[2]} 09:00:00"
    run("--json", "rotate", "--to", LAST_MONTH)
    chat["in February"] = run("encrypt", ANA, stdin=TEXTS["doctor in February"]).stdout
    assert clinic.ana.read(run.medcrypt.now, chat["in February"], "--to", LAST_MONTH) == TEXTS["doctor in February"]
    run("decrypt", stdin=chat["from Ana"], code=6)
    run("decrypt", "--archive", stdin=chat["from Ana"], shown=["Ana to doctor"])
    payload = _pair(clinic, "patient", "repair", ANA, secret="Ana's second pairing")
    assert payload not in tree(clinic.root)["home/ana.state"].decode("latin-1")
    run("patient", "remove", BENITO, "--yes")

    new = ("--new-pin-source", "env:NEW_PIN")
    run("token", "pin", f"pkcs11:token=doctor?module-path={softhsm_module()}", *new)
    new_pin = ("--pin-source", "env:NEW_PIN")
    for command in (
        ("status", "--token", "doctor"),
        ("audit", "show"),
        ("--json", "audit", "show"),
        ("audit", "verify"),
        ("audit", "checkpoint", "checkpoint.txt"),
        ("audit", "public-key"),
        # Outside, because an export names patients, and what is on this machine must not.
        *(("audit", "export", clinic.root.parent / f"log.{form}", "--format", form) for form in EXPORTS),
    ):
        run(*command, *new_pin)
    for form in EXPORTS:
        exported = (clinic.root.parent / f"log.{form}").read_bytes()
        assert ANA.encode() in exported
        assert clinic.secrets.found_in(exported) == []
    clinic.look_at_files("before the restore")
    run("vault", "restore", clinic.root / "backup-1.db", "--yes", *new_pin)
    run("status")


def _leaks(clinic: Clinic) -> list[str]:
    known, leaks = clinic.secrets, []
    for run in clinic.watched.runs:
        leaks += [f"{name} on stdout of {run.what}" for name in known.found_in(run.stdout, shown=run.shown)]
        for place, data in (("on stderr of", run.stderr), ("written by", run.written)):
            leaks += [f"{name} {place} {run.what}" for name in known.found_in(data)]
        assert all(known.found_in(run.stdout) for _ in run.shown), f"{run.what} showed nothing: the search is blind"
        # A program that it started would have the environment, PIN and all. There is none.
        assert len(run.started) == 1, f"{run.what} started {run.started[1:]}"
        if "wrong-pin" not in run.what:  # that command line is the test's own
            leaks += [f"{name} in the arguments of {run.what}" for name in known.found_in(run.started[0])]

    names = Secrets()
    for word in (ANA, BENITO, CARMEN, LABEL):
        names.add_word(word, word)
    searched: set[bytes] = set()
    for when, files in clinic.middle:
        for name, content in files.items():
            if content not in searched:
                leaks += [f"{secret} in {name} {when}" for secret in known.found_in(content)]
                leaks += [f"{secret} in {name} {when}" for secret in names.found_in(content)]
                searched.add(content)
        assert not [name for name in files if name.startswith("tmp/")], "a temporary file was left"
    expected = {"practice/vault.db", "backup-1.db", "home/benito.png", "home/carmen.svg", "home/checkpoint.txt"}
    assert expected <= set(clinic.middle[-1][1])
    assert any("vault.db-notes" in name for _, files in clinic.middle for name in files) or _notes_entered(clinic)
    return leaks


def _notes_entered(clinic: Clinic) -> bool:
    shown = next(run for run in clinic.watched.runs if run.what.startswith("medcrypt --json audit show"))
    return b"pin-wrong" in shown.stdout


def test_the_notes_of_a_wrong_pin_hold_no_pin(tmp_path: Path, medcrypt: CommandLine, softhsm: SoftHsm) -> None:
    known, wrong = Secrets(), f"wrong-{secrets.token_hex(6)}"
    known.add_word("PIN", medcrypt.environment()[PIN_VARIABLE])
    known.add_word("wrong PIN", wrong)
    vault = tmp_path / "practice" / "vault.db"
    medcrypt.env["MEDCRYPT_VAULT"] = str(vault)
    medcrypt("vault", "create", "--token", f"doctor={softhsm.make_token()}")
    done = medcrypt("--verbose", "audit", "show", env={PIN_VARIABLE: wrong}, code=4)
    notes = vault.with_name("vault.db-notes").read_bytes()
    assert b'"what":"pin-wrong"' in notes
    assert known.found_in(notes) == known.found_in((done.stdout + done.stderr).encode()) == []


# The process itself


@contextmanager
def _waiting_for_a_pin(medcrypt: CommandLine, fifo: Path, log: Path, uri: str) -> Iterator[int]:
    """A command under strace that waits for its PIN from a FIFO; its process id."""
    os.mkfifo(fifo, 0o600)
    trace = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=prctl,open,openat"]
    command = medcrypt.command("token", "check", uri, "--pin-source", f"file:{fifo}")
    with subprocess.Popen([*trace, *command], env=medcrypt.environment(), stdout=subprocess.DEVNULL) as process:

        def release() -> None:  # if it ends without asking, nobody else would open the FIFO's other end
            process.wait()
            os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))

        watch = threading.Thread(target=release)
        watch.start()
        with open(fifo, "w") as writer:  # returns when the command opens it to read
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(children) == 1
            yield int(children[0])
            writer.write(medcrypt.environment()[PIN_VARIABLE] + "\n")
        watch.join()
    assert process.returncode == 0


def test_no_core_dump_can_hold_a_pin(medcrypt: CommandLine, softhsm: SoftHsm, tmp_path: Path) -> None:
    fifo, log = tmp_path / "fifo", tmp_path / "strace"
    with _waiting_for_a_pin(medcrypt, fifo, log, softhsm.make_token()) as process:
        limits = Path(f"/proc/{process}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits
    lines = log.read_text().splitlines()
    protected = [i for i, line in enumerate(lines) if "PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in line]
    assert protected, "prctl(PR_SET_DUMPABLE, 0) was not called"
    assert protected[0] < next(i for i, line in enumerate(lines) if str(fifo) in line), "it was called too late"
    assert not [line for line in lines[protected[0] :] if "SUID_DUMP_USER" in line], "it was taken back"


# The searching itself: a search that finds nothing anywhere is no proof


def test_the_search_finds_what_is_there() -> None:
    known, key, text = Secrets(), secrets.token_bytes(32), "una frase que nadie más debe leer"
    known.add_key("key", key)
    known.add_text("text", text)
    for hidden in (
        b"xx" + key,
        key.hex().encode(),
        repr(b"ab" + key).encode(),
        *(base64.b64encode(b"x" * n + key) for n in range(5)),
        *(base64.b32encode(b"x" * n + key) for n in range(9)),
        b"..." + key[16:],
    ):
        assert known.found_in(hidden) == ["key"], hidden
    assert known.found_in(("…" + text[3:18]).encode()) == ["text"]
    assert known.found_in(b"nothing of the kind") == []
    assert known.found_in(key, shown=["key"]) == []


def test_strace_sees_what_is_written_and_started(medcrypt: CommandLine, tmp_path: Path) -> None:
    watched = Watched(medcrypt, tmp_path)
    program = "import os, subprocess, tempfile; tempfile.TemporaryFile().write(b'on-disk'); subprocess.run(['true'])"
    medcrypt.command = lambda *args: [sys.executable, "-c", program]  # type: ignore[method-assign]
    watched("anything", at="2026-12-01 10:00:00")
    assert b"on-disk" in watched.runs[0].written
    first, second = watched.runs[0].started
    assert (Path(os.fsdecode(second.split(b"\0")[0])).name, sys.executable in first.decode()) == ("true", True)
