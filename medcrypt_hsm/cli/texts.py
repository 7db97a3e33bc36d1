"""Texts in and out: what ``encrypt`` and ``decrypt`` do, and how messages that were read are shown.

A text is encrypted exactly as it is, but for one line end at its very end, which shells and editors put there. Read
texts are hostile: see ``output.framed``.
"""

from __future__ import annotations

import sys

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.run import Run, parse_month
from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.sentences import joined, t

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from medcrypt_hsm import Bad, Message, Opened

LARGEST = 64 << 20  # bytes of a text that is read whole
LONGEST_V1 = 4000  # characters of a wire text that every chat program carries in one message
SENDERS = {"d": t("from the doctor (d)"), "p": t("from the patient (p)")}


def _read(run: Run, file: str | Path | None, what: str) -> bytes:
    if file is not None and str(file) != "-":
        from medcrypt_hsm.given import read_given

        try:
            return _bounded(read_given(file, LARGEST))
        except OSError as exc:
            raise UsageError(
                t("{file} cannot be read: {reason}", file=file, reason=exc.strerror),
                "name a file that is there, or use stdin",
            ) from exc
    if sys.stdin is None:
        raise UsageError("there is no text: stdin is closed", "name a file, or give the text on stdin")
    if sys.stdin.isatty():
        run.console.say(t("{request}; end with Ctrl-D in a new line:", request=what))
    return _bounded(sys.stdin.buffer.read(LARGEST + 1))


def _bounded(data: bytes) -> bytes:
    if len(data) > LARGEST:
        raise UsageError(
            t("the text has more than {most:,} bytes", most=LARGEST), "give a whole exported chat to 'medcrypt import'"
        )
    return data


def _as_text(data: bytes) -> str | None:
    """UTF-8 or None. Compared, not caught: a UnicodeDecodeError carries the text along."""
    text = data.decode("utf-8", "replace")
    return text if text.encode() == data else None


def encrypt(run: Run, patient_id: str, file: str | Path | None) -> None:
    text = _as_text(_read(run, file, t("write the message")))
    if text is None:
        raise UsageError("the text is not UTF-8", "convert it first, for example with iconv")
    text = text.removesuffix("\n")
    if not text:
        run.console.warn("the message is empty")
    with run.open_vault("encrypting") as vault:
        texts = vault.encrypt(patient_id, text)
        month = vault.month
    version = texts[0].split(":", 2)[1]
    if version == "v1" and len(texts[0]) > LONGEST_V1:
        run.console.warn(
            t(
                "this message has {count} characters and chat programs may cut it at {most}; version 1 has "
                "no parts: write a shorter text",
                count=len(texts[0]),
                most=LONGEST_V1,
            )
        )
    document = {"patient": patient_id, "version": version, "month": str(month), "messages": texts, **run.month_opened}
    run.result(document, "".join(text + "\n" for text in texts))


def decrypt(run: Run, file: str | Path | None, archive: bool, month: str | None) -> None:
    named = parse_month(month)
    found = find_messages(run, file)
    with run.open_vault("decrypting") as vault:
        results = vault.decrypt(found, archive=archive, month=named)
    show_opened(run, results, run.month_opened)


def find_messages(run: Run, file: str | Path | None) -> Sequence[Message | Bad]:
    """Those in a text from ``file`` or stdin. Raises Malformed if there is none, before anybody is asked for a PIN."""
    from medcrypt_hsm import find_messages as find

    text = _as_text(_read(run, file, t("paste the messages")))
    if text is None:
        raise Malformed("the text is not UTF-8", "save it as UTF-8, or copy the messages again")
    found = find(text)
    if not found:
        raise Malformed("there is no MedCrypt message in this text")
    return found


def show_opened(run: Run, results: Sequence[Opened], more: dict[str, Any]) -> None:
    """Texts and errors in their places; ``more`` stands beside them in JSON. Raises the first bad one's error."""
    if run.json:
        run.result({"messages": [result.document() for result in results], **more})
    else:
        print_opened(results, run)
    _raise_first(results)


def print_opened(results: Sequence[Opened], run: Run | None = None) -> None:
    """Each text in its frame. A single text for a pipe or file is written as it is, and its header goes to stderr."""
    only = results[0] if len(results) == 1 else None
    if only is not None and only.error is not None:
        return  # it is reported as every error is
    at_terminal = sys.stdout.isatty()
    if only is not None and only.text is not None and not at_terminal and run is not None:
        run.console.say(_header(only))
        output.write_exactly(only.text)
        return
    width = columns() if at_terminal else None
    for position, result in enumerate(results, 1):
        lines = [_header(result, len(results), position)]
        if result.text is not None:
            lines += output.framed(result.text, width)
        elif result.error is not None:
            said = t(
                "error: {message}\nhint: {hint}",
                message=output.visible(result.error.message),
                hint=output.visible(result.error.hint),
            )
            lines += output.framed(said, width)
        output.write("\n".join(lines) + "\n")


def columns() -> int:
    import os

    return os.get_terminal_size(sys.stdout.fileno()).columns or 80


def _header(result: Opened, count: int = 1, position: int = 1) -> str:
    """Begins where no line of a plaintext can."""
    if count > 1:
        number = t("message {number} of {count}", number=position, count=count)
    else:
        number = t("message {number}", number=position)
    if result.error is not None:
        # What it says of itself is not proven; the patient's id may be anybody's invention.
        return t("── {number} · NOT READ", number=number)
    words = [result.patient, result.month, SENDERS.get(result.sender, t("sender unknown (v1 does not say)")), number]
    if result.part != "1.1":
        words.append(result.part)
    if result.seen:
        words.append(t("seen before"))
    return t("── {details}", details=joined(" · ", (output.visible(word) for word in words if word)))


def _raise_first(results: Sequence[Opened]) -> None:
    """The first bad message's error, which gives the exit code."""
    errors = [result.error for result in results if result.error is not None]
    if not errors:
        return
    first = errors[0]
    if len(results) > 1:
        first.message = t(
            "{bad} of {count} messages could not be read; the first: {message}",
            bad=len(errors),
            count=len(results),
            message=first.message,
        )
    raise first
