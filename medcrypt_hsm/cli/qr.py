"""Drawing a pairing code: on a terminal, as PNG, as SVG. In: the payload. A picture is a copy of the secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t

KINDS = (".png", ".svg")
_BORDER = 4  # modules of quiet zone: ISO/IEC 18004 section 5.3.8
_PIXELS = 8  # of a module in a PNG
_BLACK_ON_WHITE = "\x1b[38;5;16;48;5;231m"  # from the fixed part of the palette: themes do not change it
_RESET = "\x1b[0m"
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
Matrix = list[list[bool]]


def matrix(payload: str) -> Matrix:
    """Rows of modules, True is dark, quiet zone included. A v2 payload is version 4 at error correction M."""
    import qrcode
    from qrcode.constants import ERROR_CORRECT_M

    code = qrcode.QRCode(error_correction=ERROR_CORRECT_M, border=_BORDER)
    code.add_data(payload, optimize=0)
    code.make(fit=True)
    rows: Matrix = code.get_matrix()
    return rows


def terminal(payload: str) -> str:
    """Two rows of modules a line, in colours of its own, so that a dark theme does not invert it."""
    rows = matrix(payload)
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = "".join(_HALVES[pair] for pair in zip(upper, lower, strict=True))
        lines.append(f"{_BLACK_ON_WHITE}{cells}{_RESET}\n")
    return "".join(lines)


def fits(columns: int, payload: str) -> bool:
    return len(matrix(payload)[0]) <= columns


@contextmanager
def picture_file(path: Path | None) -> Iterator[IO[bytes] | None]:
    """A new file, 0600, before the secret exists; gone again if something fails. Raises UsageError."""
    if path is None:
        yield None
        return
    if path.suffix.lower() not in KINDS:
        raise UsageError(t("{path} is neither .png nor .svg", path=path), "name the picture FILE.png or FILE.svg")
    from medcrypt_hsm.vault.store.atomic import new_file

    try:
        file = new_file(path)
    except FileExistsError as exc:
        raise UsageError(t("{path} exists already", path=path), "name a new file; delete old pairing codes") from exc
    except OSError as exc:
        raise UsageError(
            t("{path} cannot be made: {reason}", path=path, reason=exc.strerror), "name a file in a directory of yours"
        ) from exc
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def draw(payload: str, file: IO[bytes], path: Path) -> None:
    """Into a file that ``picture_file`` opened."""
    rows = matrix(payload)
    if path.suffix.lower() == ".svg":
        file.write(_svg(rows).encode())
        return
    import png

    big = [[0 if dark else 1 for dark in row for _ in range(_PIXELS)] for row in rows for _ in range(_PIXELS)]
    png.Writer(width=len(big[0]), height=len(big), greyscale=True, bitdepth=1).write(file, big)


def _svg(rows: Matrix) -> str:
    size = len(rows)
    dark = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, module in enumerate(row) if module)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size * _PIXELS}" '
        f'height="{size * _PIXELS}" shape-rendering="crispEdges">'
        f'<rect width="{size}" height="{size}" fill="#fff"/><path d="{dark}" fill="#000"/></svg>\n'
    )
