"""The log for other programs: ``export`` writes entries to a new file as JSON Lines, CSV or CEF (docs/spec/audit.md).

In: an unlocked vault, a filter. Out: a file of mode 0600 that is whole or not there. Each entry's hash is recomputed on
the way, up to the head that the unlock verified: an entry that was altered or left out stops the export. Entries hold
no key, secret or plaintext, but they name patients. Memory does not grow with the log.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medcrypt_hsm.errors import AuditBroken, Malformed, NotAuthentic, UsageError
from medcrypt_hsm.notation import canonical, parse_time
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import ACTIONS, ALARM, AUDIT_EXPORT, DONE, EVERYDAY, FAILED, INTENDED
from medcrypt_hsm.vault.audit.chain import Chain, check_token
from medcrypt_hsm.vault.audit.entries import Entry, genesis
from medcrypt_hsm.vault.audit.filter import EVERY_ENTRY, EntryFilter
from medcrypt_hsm.vault.change import failures_recorded
from medcrypt_hsm.vault.store import atomic
from medcrypt_hsm.vault.unlocked import Unlocked
from medcrypt_hsm.version import VERSION

_TEXTS = ("time", "actor", "token", "action", "subject", "outcome")


class Told(NamedTuple):
    """An entry and where it stands."""

    sequence: int
    entry: Entry
    hash: bytes


@dataclass(frozen=True, slots=True)
class Exported:
    format: str
    entries: int


def export(unlocked: Unlocked, target: Path, format: str = "jsonl", where: EntryFilter = EVERY_ENTRY) -> Exported:
    """The entries that ``where`` takes, in a new file at ``target``; recorded before it is made, and if it fails.

    The last one that it can hold is the export's own. Raises UsageError, AuditBroken, OSError.
    """
    check(target, format)
    with unlocked.change(AUDIT_EXPORT, target.name, outcome=INTENDED) as change:
        change.detail |= {"format": format} | where.told()
    with (
        failures_recorded(unlocked, AUDIT_EXPORT, target.name),
        # Closed before the failure is recorded: its snapshot would be in the way.
        atomic.written_whole(target) as partial,
        closing(_selected(unlocked, where)) as selected,
    ):
        return Exported(format, _write(partial, FORMATS[format](selected)))


def write_whole(target: Path, format: str, entries: Iterable[Told]) -> int:
    """The file alone, whole or not there; how many entries. Whoever gives them has recorded that they are read."""
    with atomic.written_whole(target) as partial:
        return _write(partial, FORMATS[format](entries))


def check(target: Path, format: str) -> None:
    """Raises UsageError, before anybody is asked for a PIN."""
    if format not in FORMATS:
        raise UsageError(
            t("{format!r} is no format", format=format), t("give one of {formats}", formats=", ".join(FORMATS))
        )
    atomic.check_new(target)


def _write(path: Path, texts: Iterator[str]) -> int:
    """The first of ``texts`` is the head of the file, each other one an entry. How many entries there were."""
    with io.TextIOWrapper(atomic.new_file(path), encoding="utf-8", newline="") as file:
        count = -1
        for text in texts:
            file.write(text)
            count += 1
        atomic.write_through(file)
    return count


def _selected(unlocked: Unlocked, where: EntryFilter) -> Generator[Told, None, None]:
    """Up to the newest head that was verified. Raises AuditBroken where the entries are not those that it is over."""
    vault_id = unlocked.state.vault_id
    chain = Chain(vault_id, 0, genesis(vault_id), {})
    with unlocked.file.snapshot():
        for row in unlocked.file.entries():
            chain.extend(row, check_head=False)
            entry = unlocked.log.read_entry(row)
            check_token(row, entry, chain.names)
            if where.takes(entry):
                yield Told(row.sequence, entry, row.hash)
            if row.sequence == unlocked.log.sequence:
                break
    if chain.hash != unlocked.log.head:
        raise AuditBroken("the entries are not those that the newest head signs", at=chain.sequence)


def _jsonl(entries: Iterable[Told]) -> Iterator[str]:
    yield ""
    for told in entries:
        document = {
            "sequence": told.sequence,
            **{name: getattr(told.entry, name) for name in _TEXTS},
            "detail": told.entry.detail,
            "hash": told.hash.hex(),
        }
        yield json.dumps(document, ensure_ascii=True) + "\n"  # ASCII: nothing in it can end a line or steer a terminal


def _csv(entries: Iterable[Told]) -> Iterator[str]:
    yield _csv_line(["sequence", *_TEXTS, "detail", "hash"])
    for told in entries:
        texts = [getattr(told.entry, name) for name in _TEXTS]
        cells = [*texts, canonical(told.entry.detail).decode(), told.hash.hex()]
        yield _csv_line([str(told.sequence), *map(_guarded, cells)])


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def _guarded(cell: str) -> str:
    """A spreadsheet takes a cell that begins so for a formula, so an apostrophe is put before it.

    A cell that begins with an apostrophe gets another one, so that taking one away always gives the cell.
    """
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'")) else cell


_ALARMS = {NotAuthentic.name, Malformed.name, AuditBroken.name}


def severity(entry: Entry) -> int:
    """0 to 10: that of the action or that of the outcome, whichever is higher."""
    known = ACTIONS.get(entry.action)
    by_action = EVERYDAY if known is None else known.severity
    if entry.outcome in (DONE, INTENDED):
        return by_action
    return max(by_action, ALARM if entry.outcome in _ALARMS else FAILED)


def _cef(entries: Iterable[Told]) -> Iterator[str]:
    yield ""
    for told in entries:
        entry = told.entry
        known = ACTIONS.get(entry.action)
        name = entry.action.replace(".", " ") if known is None else known.says
        head = ("CEF:0", "MedCrypt", "medcrypt", VERSION, entry.action, name, str(severity(entry)))
        extension = {
            "rt": str(int(parse_time(entry.time).timestamp()) * 1000),
            "externalId": str(told.sequence),
            "suser": entry.actor,
            "act": entry.action,
            "outcome": entry.outcome,
            "cs1Label": "subject",
            "cs1": entry.subject,
            "cs2Label": "token",
            "cs2": entry.token,
            "cs3Label": "hash",
            "cs3": told.hash.hex(),
            "msg": canonical(entry.detail).decode(),
        }
        pairs = " ".join(f"{key}={_cef_value(value)}" for key, value in extension.items())
        yield "|".join(map(_cef_head, head)) + f"|{pairs}\n"


def _cef_head(text: str) -> str:
    # A head has no way to write a line end; ``act`` has the action as it is.
    return " ".join(text.splitlines()).replace("\\", "\\\\").replace("|", "\\|")


def _cef_value(text: str) -> str:
    return text.replace("\\", "\\\\").replace("=", "\\=").replace("\n", "\\n").replace("\r", "\\r")


FORMATS: dict[str, Callable[[Iterable[Told]], Iterator[str]]] = {"jsonl": _jsonl, "csv": _csv, "cef": _cef}
