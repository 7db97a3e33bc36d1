"""``safe_name``: from a name that a stranger chose, one that is harmless on any disk (docs/spec/files.md).

Text in, text out; it looks at no disk. The name cannot lead out of the directory where it is put, hides nothing of
itself, is no device and no option, and cannot be taken for a file that this program, a vault or SQLite leaves: a
``vault.db-journal`` beside a vault would be rolled back into it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from medcrypt_hsm.vault.store.atomic import UNFINISHED

MOST_BYTES = 200  # of 255 that file systems take: " (2)" must fit after it
_EXTENSION_BYTES = 16
_JOINERS = "\u200c\u200d"  # inside words of some scripts and emoji; they move nothing
_NOT_AT_ENDS = " ." + _JOINERS
_FORBIDDEN = '<>:"|?*'  # by Windows; a colon would name a stream of the file
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
# What SQLite, a vault and this program put behind the name of their file.
_BESIDE = re.compile(
    r"[-.](?=(journal|wal|shm|mj|creating|restoring|session|queue|lock|notes|backup|certificate|found|partial)"
    r"(-?[0-9a-f]+)?(\.json|\.md)?$)",
    re.IGNORECASE | re.ASCII,
)


def safe_name(name: str) -> str:
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    name = "".join(map(_harmless, name)).strip(_NOT_AT_ENDS)
    if name.startswith(("-", UNFINISHED)) or _DEVICE.match(name):
        name = "_" + name
    return _BESIDE.sub("_", _shortened(name)) or "file"  # after the cut, which may bare such an ending


def numbered(name: str) -> Iterator[str]:
    """``name``, and what it is called where that is taken: ``x.pdf``, ``x (2).pdf``, ``x (3).pdf`` …"""
    yield name
    stem, extension = _split(name)
    number = 2
    while True:
        yield f"{stem} ({number}){extension}"
        number += 1


def _harmless(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if character in _JOINERS:
        return character
    if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character in _FORBIDDEN:
        return "_"
    return character


def _shortened(name: str) -> str:
    if len(name.encode()) <= MOST_BYTES:
        return name
    stem, extension = _split(name)
    room = MOST_BYTES - len(extension.encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(_NOT_AT_ENDS) + extension


def _split(name: str) -> tuple[str, str]:
    """Before the extension, and the extension with its point; "" where it is too long to be one."""
    stem, point, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _EXTENSION_BYTES:
        return name, ""
    return stem, point + extension
