"""``medcrypt chat``: a conversation at the terminal. What came is pasted and read; what is typed becomes wire text.

One entry is everything up to an empty line: a text that holds MedCrypt messages is decrypted, any other is a reply. The
wire text of a reply is shown, and put on the clipboard where the terminal does that (OSC 52); it is taken off it again
after ``CLIPBOARD_SECONDS``, and at the end. Plaintext never goes to the clipboard. Nothing is kept: no history.
"""

from __future__ import annotations

import contextlib
import sys
from _thread import allocate_lock

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.cli.texts import print_opened
from medcrypt_hsm.errors import MedcryptError, PinError, TokenError, UsageError, VaultError
from medcrypt_hsm.sentences import t

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from medcrypt_hsm import Vault

CLIPBOARD_SECONDS = 45
LONGEST_OSC = 100_000  # characters; terminals drop longer ones
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_HELP = (
    "Paste what came, or type a reply; an empty line ends it. '/quit' or Ctrl-D ends the conversation.\n"
    "A reply's wire text is shown, and on the clipboard if this terminal allows it."
)


class _Away(Exception):
    """Nobody typed for too long."""


def chat(run: Run, patient_id: str, idle: str, archive: bool) -> None:
    seconds = _parse_idle(idle)
    if run.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("a conversation needs a terminal", "programs use 'medcrypt decrypt' and 'medcrypt encrypt'")
    _without_history()
    with run.open_vault("unlocking") as vault, _Clipboard() as clipboard:
        if not any(pairing.state in ("active", "pending") for pairing in vault.patients.show(patient_id)):
            raise UsageError(t("{patient} has no pairing in use", patient=patient_id), "see 'medcrypt patient show ID'")
        run.console.say_lines(_HELP)
        try:
            while (entry := _entry(seconds)) is not None:
                _answer(run, vault, patient_id, entry, archive, clipboard)
        except _Away:
            run.console.say(
                t("nothing was typed for {time}: the conversation is ended, and the token locked", time=idle)
            )


def _parse_idle(text: str) -> int:
    """Seconds. Raises UsageError."""
    number, unit = text[:-1], text[-1:]
    formed = number.isascii() and number.isdecimal() and len(number) <= 4 and number[0] != "0" and unit in _SECONDS
    seconds = int(number) * _SECONDS[unit] if formed else 0
    if not 1 <= seconds <= 8 * 3600:
        raise UsageError(t("{text!r} is no time to wait", text=text), "write it like 90s, 15m or 2h, at most 8h")
    return seconds


def _without_history() -> None:
    """The line editor takes lines of any length, which a terminal alone cuts at 4,096 bytes; it must keep none."""
    with contextlib.suppress(ImportError):
        import readline

        readline.set_auto_history(False)
        readline.clear_history()
        readline.parse_and_bind("set enable-bracketed-paste on")


def _entry(seconds: int) -> str | None:
    """Everything up to an empty line, without it; None at the end. Raises _Away."""
    lines: list[str] = []
    prompt = "> "
    sys.stdout.write("\n")
    while True:
        try:
            with _alarm(seconds):
                line = input(prompt)
        except EOFError:
            sys.stdout.write("\n")
            return "\n".join(lines) if any(map(str.strip, lines)) else None
        if not lines and line.strip() == "/quit":
            return None
        if not line.strip() and lines:
            return "\n".join(lines)
        if line.strip():
            lines.append(line)
        elif not lines:
            continue
        prompt = "… "


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    import signal

    def away(*_: object) -> None:
        raise _Away

    before = signal.signal(signal.SIGALRM, away)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _answer(run: Run, vault: Vault, patient_id: str, entry: str, archive: bool, clipboard: _Clipboard) -> None:
    """One entry. What is wrong with it is said, and the conversation goes on; what ends the vault's use is raised."""
    from medcrypt_hsm import find_messages

    try:
        if found := find_messages(entry):
            results = vault.decrypt(found, archive=archive)
            print_opened(results)
            for result in results:
                if result.error is not None and len(results) == 1:
                    _say(run, result.error)
                if result.error is None and result.patient != patient_id:
                    run.console.warn(
                        t("that is a message of {patient}, not of {wanted}", patient=result.patient, wanted=patient_id)
                    )
        else:
            texts = vault.encrypt(patient_id, entry)
            output.write("".join(text + "\n" for text in texts))
            sys.stdout.flush()
            clipboard.put("\n".join(texts))
            if len(texts) == 1:
                said = t(
                    "it is on the clipboard for {seconds} seconds, if this terminal allows it",
                    seconds=CLIPBOARD_SECONDS,
                )
            else:
                said = t(
                    "all {count} parts are on the clipboard for {seconds} seconds, if this terminal allows it",
                    count=len(texts),
                    seconds=CLIPBOARD_SECONDS,
                )
            run.console.say(said)
    except (TokenError, PinError, VaultError):
        raise
    except MedcryptError as exc:
        _say(run, exc)


def _say(run: Run, exc: MedcryptError) -> None:
    from medcrypt_hsm.cli.console import hint_of

    run.console.say_lines(
        t("error: {message}\nhint: {hint}", message=output.visible(exc.message), hint=output.visible(hint_of(exc)))
    )


class _Clipboard:
    """The terminal's clipboard, by OSC 52. It is emptied after a while, and at the end."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._lock = allocate_lock()

    def __enter__(self) -> _Clipboard:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._clear()

    def put(self, text: str) -> None:
        import threading

        from medcrypt_hsm.notation import encode_base64

        encoded = encode_base64(text.encode(), padded=True)
        if len(encoded) > LONGEST_OSC:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._write(encoded)
        self._timer = threading.Timer(CLIPBOARD_SECONDS, self._clear)
        self._timer.daemon = True
        self._timer.start()

    def _clear(self) -> None:
        self._timer = None
        self._write("")

    def _write(self, encoded: str) -> None:
        with self._lock, contextlib.suppress(OSError):
            sys.stdout.write(f"\x1b]52;c;{encoded}\x07")
            sys.stdout.flush()
