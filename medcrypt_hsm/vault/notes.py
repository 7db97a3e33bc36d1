"""Notes: what failed before unlock, kept beside the vault until the next unlock enters it into the log.

Written before any key is there, a note is only as trustworthy as the file; the entry says so by its action. The file
gets its entry's name before the commit, and goes after it, so that a kill between loses and doubles nothing. In: what
failed. Out: lines beside a vault, then entries in its log. Not here: the files (store/surroundings.py).
"""

from __future__ import annotations

import json
from typing import Any

from medcrypt_hsm.notation import canonical
from medcrypt_hsm.vault.audit.actions import NOTES
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.surroundings import NoteFile, surroundings_of
from medcrypt_hsm.vault.unlocked import Unlocked

MOST_NOTES = 1000  # entered at once; a file that was stuffed must not stop the practice
LONGEST = 500


def write(vault: Location, what: str, time: str, **fields: Any) -> None:
    """Note that ``what`` (an error's name) happened. Without a vault there is nothing to note it beside."""
    surroundings = surroundings_of(vault)
    if surroundings.vault_exists:
        surroundings.notes.add(canonical({"what": what, "time": time, **fields}))


def enter(unlocked: Unlocked) -> int:
    """Enter what is noted; how many notes that were."""
    kept = unlocked.file.surroundings.notes
    if not kept.pending():
        return 0
    entered = 0
    with kept.files() as files:
        for file in files:
            if file.entry is not None and unlocked.file.has_entry_hash(file.entry):
                file.remove()
                continue
            notes = _read(file)
            if notes:
                with unlocked.change(NOTES, before_commit=file.name_by) as change:
                    change.detail["notes"] = notes
            file.remove()
            entered += len(notes)
    return entered


def _refuse(number: str) -> None:
    raise ValueError("not a number that canonical JSON knows")


def _read(file: NoteFile) -> list[Any]:
    """Lines as they are; what is not JSON is kept as text, because somebody may have wanted it unread."""
    notes: list[Any] = []
    for line in file.lines(LONGEST):
        if len(notes) == MOST_NOTES:
            notes.append({"what": "more notes than can be entered were dropped"})
            break
        text = line.decode("utf-8", "replace").rstrip("\n")
        try:
            note = json.loads(text, parse_float=_refuse, parse_constant=_refuse)
            canonical(note)  # half a character (a lone surrogate) is JSON, but no entry can hold it
        except (ValueError, RecursionError):
            note = {"what": "unreadable", "text": text}
        notes.append(note if isinstance(note, dict) else {"what": "unreadable", "text": text})
    return notes
