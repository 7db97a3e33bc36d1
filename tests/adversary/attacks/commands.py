"""The command line in this process, and the commands that a practice uses."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from medcrypt_hsm.cli.main import run
from tests.adversary.attacks.scene import PLAINTEXT, Scene


@dataclass
class Said:
    code: int
    out: str
    err: str

    def is_refused(self, code: int, words: str) -> None:
        """In two lines; and nothing leaves: no wire text, no plaintext."""
        assert self.code == code, self
        assert self.out == "", self
        first, second, *more = self.err.splitlines()
        assert not more, self
        assert first.startswith("error: "), self
        assert re.search(words, first), self
        assert re.fullmatch("hint: .+", second), self
        assert PLAINTEXT not in self.err, self
        assert "MEDCRYPT" not in self.err.replace("MEDCRYPT_", ""), self


def command(vault: Path, token: str, *args: str | Path) -> Said:
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with redirect_stdout(out), redirect_stderr(err):
        options = ("--vault", str(vault), "--token", token, "--yes", "--quiet", "--non-interactive")
        code = run([*options, *map(str, args)])
        out.flush()
        err.flush()
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return Said(code, *said)


def commands(scene: Scene, directory: Path) -> dict[str, tuple[str | Path, ...]]:
    """What encrypts, shows, signs or destroys."""
    text, wire = directory / "text", directory / "wire"
    text.write_text(PLAINTEXT)
    wire.write_text("\n".join(scene.texts.values()))
    return {
        "encrypt": ("encrypt", "EXP-1", text),
        "decrypt": ("decrypt", wire, "--archive"),
        "shred": ("shred", "2026-10"),
        "erase": ("patient", "erase", "EXP-1"),
        "remove-token": ("vault", "remove-token", "spare"),
        "sync": ("vault", "sync"),
        "hold remove": ("hold", "remove", "--patient", "EXP-4", "--reason", "x"),
        "policy": ("vault", "policy", "--retain-months", "1"),
        "rotate": ("rotate",),
        "backup": ("vault", "backup", directory / "new.db"),
        "list": ("patient", "list"),
        "add": ("patient", "add", "EXP-9"),
        "show": ("audit", "show"),
        "verify": ("audit", "verify"),
        "checkpoint": ("audit", "checkpoint"),
        "anchor": ("audit", "anchor"),
        "status": ("status",),
    }
