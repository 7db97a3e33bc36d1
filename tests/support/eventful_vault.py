"""One eventful vault, and the hand that changes single values of its copies, as somebody with the file and no token.

``Eventful.copy`` gives a file to damage; ``judge`` opens and verifies it and says which of the two found the damage.
The token stays open, and nothing here moves its anchor, so that every copy is judged by the same memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import AuditBroken, NotAuthentic, VaultDamaged, VaultError
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.unlock import unlock
from medcrypt_hsm.vault.unlocked import Unlocked
from tests.support.practice import Phone, Practice
from tests.support.store import TABLES, Database, fold, open_at, rows

COLUMNS = {
    "trust": ("kind", "name", "value"),
    "entries": ("sequence", "stored", "hash", "trust", "signer", "signature"),
    "records": ("purpose", "pairing", "month", "sequence", "wrapped", "mac"),
    "sealed": ("purpose", "pairing", "lookup", "sequence", "nonce", "body"),
    "seen": ("pairing", "month", "nonce", "digest"),
}
KEYS = {"trust": 2, "entries": 1, "records": 3, "sealed": 2, "seen": 3}  # how many of them are the primary key

UNLOCK, VERIFY = "unlock", "verify"
Row = tuple[Any, ...]


@dataclass
class Eventful:
    """``older`` is the same vault, some entries before. ``texts``: wire text → pairing and month that it is under."""

    practice: Practice
    directory: Path
    token: Token
    older: Path = field(init=False)
    anchor: int = field(init=False)
    texts: dict[str, tuple[bytes | None, str]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.practice.path

    def copy(self, source: Path | None = None) -> Path:
        target = self.directory / "copy.db"
        for leftover in self.directory.glob("copy.db*"):
            leftover.unlink()
        return Path(shutil.copy(source or self.path, target))

    def rows(self, table: str, path: Path | None = None) -> list[Row]:
        return rows(path or self.path, table)

    @contextmanager
    def unlocked(self, path: Path) -> Iterator[Unlocked]:
        """Like ``Vault.open``, but the token stays open for the next one."""
        file = open_at(path)
        try:
            found = unlock(file, self.token, "doctor", actor="mara", clock=self.practice.clock)
            try:
                yield found
            finally:
                found.log.drop_keys()
                found.keyset.destroy()
        finally:
            file.close()

    def judge(self, path: Path, what: str, use: Callable[[Unlocked], None] | None = None) -> str:
        """Which step refused the file. That none did is the failure of the test."""
        try:
            with self.unlocked(path) as found:
                try:
                    log.verify(found)
                except (AuditBroken, VaultDamaged):
                    if use is not None:
                        use(found)
                    return VERIFY
        except (VaultError, NotAuthentic):
            return UNLOCK
        raise AssertionError(f"accepted: {what}")


def make(practice: Practice, directory: Path, open_token: Callable[[], Token]) -> Eventful:
    """Patients of both versions, months, a repair, a removal, a backup, an anchor, and entries after the anchor."""
    directory.mkdir()
    texts: dict[str, tuple[bytes | None, str]] = {}

    def exchange(vault: Vault, patient_id: str, phone: Phone, month: str) -> None:
        for text in (*vault.encrypt(patient_id, f"a {patient_id}"), *phone.write(f"de {patient_id}")):
            vault.decrypt(text)
            texts[text] = phone.state.pairing, month

    with practice.open() as vault:
        one, two = practice.pair(vault, "EXP-1"), practice.pair(vault, "EXP-2")
        vault.patients.add("EXP-V1", protocol="v1", secret="clinic-7-pairing-secret-2026")
        vault.patients.add("EXP-V2", protocol="v1")
        for patient_id, phone in (("EXP-1", one), ("EXP-2", two)):
            exchange(vault, patient_id, phone, "2026-11")
        (text,) = vault.encrypt("EXP-V1", "a EXP-V1")
        vault.decrypt(text)
        texts[text] = None, "2026-11"
        vault.encrypt("EXP-1", "nobody read this one back")
    older = Path(shutil.copy(practice.path, directory / "older.db"))

    practice.clock.set("2026-12-02")
    with practice.open() as vault:
        for patient_id, phone in (("EXP-1", one), ("EXP-2", two)):
            exchange(vault, patient_id, phone, "2026-12")
        again = Phone.scan(vault.patients.repair("EXP-2").payload, practice.clock)
        vault.patients.confirm("EXP-2", again.check_code)
        vault.patients.remove("EXP-V2")
        vault.backup(directory / "backup.db")
        anchor = vault.status().anchor
        exchange(vault, "EXP-1", one, "2026-12")
        practice.clock.forward(minutes=1)
        vault.patients.add("EXP-3")
    fold(practice.path)
    fold(older)

    made = Eventful(practice, directory, open_token())
    assert anchor is not None
    made.older, made.anchor, made.texts = older, anchor, texts
    return made


# The hand


def where(table: str, row: Row) -> tuple[str, Row]:
    key = COLUMNS[table][: KEYS[table]]
    return " AND ".join(f"{name} = ?" for name in key), row[: len(key)]


def delete(db: Database, table: str, row: Row) -> None:
    condition, values = where(table, row)
    assert db.execute(f"DELETE FROM {table} WHERE {condition}", values).rowcount == 1


def insert(db: Database, table: str, row: Row) -> None:
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def put(db: Database, table: str, row: Row, column: str, value: Any) -> None:
    """One value of one row; text is given as bytes, so that it need not be UTF-8."""
    condition, values = where(table, row)
    placed = "CAST(? AS TEXT)" if isinstance(row[COLUMNS[table].index(column)], str) else "?"
    assert db.execute(f"UPDATE {table} SET {column} = {placed} WHERE {condition}", (value, *values)).rowcount == 1


def flipped(value: Any, bit: int) -> Any:
    """``value`` with one bit flipped, counted from the end and around. Text becomes bytes."""
    if isinstance(value, int):
        return value ^ 1 << bit % 63
    data = bytearray(value.encode() if isinstance(value, str) else value)
    data[-1 - bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(data)


def every_row(eventful: Eventful) -> Iterator[tuple[str, Row]]:
    for table in TABLES:
        for row in eventful.rows(table):
            yield table, row
