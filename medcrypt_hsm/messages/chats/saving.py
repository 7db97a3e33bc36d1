"""An import in a new file: JSON Lines for programs, HTML for people. Plaintext: mode 0600, and whole or not there."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.messages.chats import html
from medcrypt_hsm.messages.chats.conversation import Read, Summary
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.vault.store import atomic

ENDINGS = (".jsonl", ".html")


def check(target: Path) -> None:
    """Raises UsageError, before anybody is asked for a PIN."""
    if target.suffix.lower() not in ENDINGS:
        raise UsageError(
            t("{name!r} does not say its format", name=target.name),
            t("let it end in {endings}", endings=joined(t(" or "), ENDINGS)),
        )
    atomic.check_new(target)


def save(target: Path, batches: Iterable[list[Read]], summary: Summary) -> None:
    """Raises UsageError, OSError, and what ``batches`` raises; there is no file then."""
    check(target)
    texts = html.transcript(batches, summary) if target.suffix.lower() == ".html" else _lines(batches)
    with (
        atomic.written_whole(target) as partial,
        io.TextIOWrapper(atomic.new_file(partial), encoding="utf-8", newline="") as file,
    ):
        for text in texts:
            file.write(text)
        atomic.write_through(file)


def _lines(batches: Iterable[list[Read]]) -> Iterator[str]:
    for batch in batches:
        # ASCII: nothing in it can end a line or steer a terminal.
        yield "".join(json.dumps(read.document(), ensure_ascii=True) + "\n" for read in batch)
