"""A small practice for the tests of scripts/standalone/verify_audit.py, and a way to run the script on it.

Entry 1 introduces `praxis`, 2 is sealed, 3 introduces `reserve` (signed by praxis), 4 is sealed and signed by praxis,
5 opens a month (the trust state changes) and 6 writes a message, both signed by reserve.
"""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from scripts.standalone import verify_audit
from tests.support.vault_builder import SoftToken, VaultBuilder


@dataclass
class Practice:
    directory: Path
    praxis: SoftToken
    reserve: SoftToken
    built: VaultBuilder

    def file(self) -> Path:
        return self.built.write(self.directory / "practice.vault")

    def note(self, content: bytes) -> Path:
        path = self.directory / f"checkpoint-{os.urandom(4).hex()}"
        path.write_bytes(content)
        return path

    def run(self, *keys: SoftToken, file: Path | None = None, notes: tuple[bytes, ...] = ()) -> tuple[int, str]:
        """Exit code and what was printed. Without keys: the first token's."""
        argv = [str(file or self.file())]
        for key in keys or (self.praxis,):
            pem = self.directory / f"{key.id.hex()}.pem"
            pem.write_bytes(key.pem())
            argv += ["--public-key", str(pem)]
        for content in notes:
            argv += ["--checkpoint", str(self.note(content))]
        return run(*argv)

    def refused(
        self, why: str, *keys: SoftToken, entry: int | None = None, file: Path | None = None,
        notes: tuple[bytes, ...] = ()
    ) -> None:  # fmt: skip
        code, said = self.run(*keys, file=file, notes=notes)
        assert code == 5, said
        start = "NOT VERIFIED: " if entry is None else f"NOT VERIFIED: entry {entry}: "
        assert said.startswith(start), said
        assert why in said
        assert said.count("\n") == 1

    def verified(self, *keys: SoftToken, file: Path | None = None, notes: tuple[bytes, ...] = ()) -> str:
        code, said = self.run(*keys, file=file, notes=notes)
        assert code == 0, said
        return said


def run(*argv: str) -> tuple[int, str]:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = verify_audit.main(argv)
    return code, said.getvalue()


def make_practice(directory: Path) -> Practice:
    """Six entries: see the module's docstring."""
    praxis, reserve, built = SoftToken("praxis"), SoftToken("reserve"), VaultBuilder()
    built.open_month("2026-10")
    built.introduce(praxis, praxis)
    built.records.append(("log", b"", "00000001", built.sealed(praxis).sequence))
    built.introduce(reserve, praxis)
    built.sealed(praxis)
    built.open_month("2026-11")
    built.sealed(reserve)
    built.sealed(reserve)
    return Practice(directory, praxis, reserve, built)
