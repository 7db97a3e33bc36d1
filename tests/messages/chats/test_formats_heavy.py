"""Files of gigabytes (of megabytes, but for the long campaigns), read in a process whose peak memory is looked at."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.checkout import FULL, ROOT

MIB = 1 << 20
SIZE = 2048 * MIB if FULL else 24 * MIB
HOLE = 1024 * MIB if FULL else 48 * MIB  # of a sparse file
MOST = 24 * MIB  # above what the same process needs for a small file

# VmHWM and not ru_maxrss, which a child begins with its parent's.
READING = """
import re, sys
from pathlib import Path
from medcrypt_hsm.messages.chats.telegram import TelegramExport
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
kind = {"telegram": TelegramExport, "whatsapp": WhatsAppExport}[sys.argv[1]]
texts = errors = 0
for message in kind(Path(sys.argv[2])).messages():
    texts += message.text.startswith("[MEDCRYPT:")
    errors += message.error is not None
peak = re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1]
print(texts, errors, peak)
"""


def read(kind: str, path: Path) -> tuple[int, int, int]:
    """Texts of ours, errors, bytes of memory at the most."""
    command = [sys.executable, "-c", READING, kind, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    texts, errors, peak = map(int, done.stdout.split())
    return texts, errors, peak * 1024


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What the process needs anyway."""
    path = tmp_path_factory.mktemp("little") / "result.json"
    path.write_text('{"messages": [{"text": "x"}]}')
    return read("telegram", path)[2]


WIRE = "[MEDCRYPT:v2:" + "A" * 900 + "]"
MESSAGE = f"""  {{
   "id": 1,
   "type": "message",
   "date_unixtime": "1795341600",
   "text": "{WIRE}",
   "text_entities": [
    {{
     "type": "plain",
     "text": "{WIRE}"
    }}
   ]
  }}"""


def telegram_stream(many: int) -> Iterator[str]:
    yield '{"about": "x", "chats": {"list": [{"name": "A", "messages": [\n'
    for start in range(0, many, 1000):
        yield ",\n".join([MESSAGE] * min(1000, many - start)) + (",\n" if start + 1000 < many else "")
    yield "\n]}]}}"


def test_a_long_export_through_a_pipe(tmp_path: Path, little: int) -> None:
    pipe, many = tmp_path / "result.json", SIZE // len(MESSAGE)
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("w") as file:
            file.writelines(telegram_stream(many))

    writer = threading.Thread(target=write)
    writer.start()
    texts, errors, peak = read("telegram", pipe)
    writer.join()
    assert (texts, errors) == (many, 0)
    assert peak - little < MOST


def sparse(path: Path, before: str, after: str) -> None:
    """A hole of zero bytes between two texts."""
    with path.open("wb") as file:
        file.write(before.encode())
        file.seek(HOLE, os.SEEK_CUR)
        file.write(after.encode())


FIN = ', {"text": "[MEDCRYPT:fin]"}'
HOLES: dict[str, tuple[str, str, str, tuple[int, int]]] = {
    "a line": ("whatsapp", "22/11/26, 10:15 - A: ", "\n22/11/26, 10:15 - A: [MEDCRYPT:x]\n", (1, 1)),
    "a line before all": ("whatsapp", "", "\n22/11/26, 10:15 - A: [MEDCRYPT:x]\n", (1, 0)),
    "a skipped string": ("telegram", '{"about": "', '", "messages": [{}' + FIN + "]}", (1, 0)),
    "a chat's name": ("telegram", '{"name": "', '", "messages": [{}' + FIN + "]}", (1, 0)),
    "a key": ("telegram", '{"', '": 1, "messages": [{}' + FIN + "]}", (1, 0)),
    "a text": ("telegram", '{"messages": [{"text": "', '"}' + FIN + "]}", (1, 1)),
    "a number": ("telegram", '{"messages": [{"id": 1', "}" + FIN + "]}", (1, 1)),
    "behind all": ("telegram", '{"messages": [{}' + FIN + "]}", "", (1, 1)),
}


@pytest.mark.parametrize("what", HOLES)
def test_what_never_ends(tmp_path: Path, little: int, what: str) -> None:
    kind, before, after, expected = HOLES[what]
    path = tmp_path / "export"
    sparse(path, before, after or " ")
    texts, errors, peak = read(kind, path)
    assert (texts, errors) == expected
    assert peak - little < MOST


Writer = Callable[[Path], None]


def unclosed(path: Path) -> None:
    sparse(path, '{"messages": [{"text": "', " ")


def white(path: Path) -> None:
    path.write_text('{"messages": [' + " " * (HOLE // 4) + '{"text": "[MEDCRYPT:x]"}]}')


def empty_lines(path: Path) -> None:
    path.write_text("22/11/26, 10:15 - A: [MEDCRYPT:x" + "\n" * (HOLE // 32))


def one_array(path: Path) -> None:
    path.write_text('{"messages": [[' + "5," * (HOLE // 8) + '5], {"text": "[MEDCRYPT:x]"}]}')


@pytest.mark.parametrize(
    ("kind", "write", "expected"),
    [
        ("telegram", unclosed, (0, 1)),
        ("telegram", white, (1, 0)),
        ("whatsapp", empty_lines, (0, 1)),
        ("telegram", one_array, (1, 1)),
    ],
)
def test_more_that_never_ends(tmp_path: Path, little: int, kind: str, write: Writer, expected: tuple[int, int]) -> None:
    write(tmp_path / "export")
    texts, errors, peak = read(kind, tmp_path / "export")
    assert (texts, errors) == expected
    assert peak - little < MOST
