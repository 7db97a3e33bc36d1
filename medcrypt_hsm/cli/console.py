"""The person: what is said on stderr, and what is asked on the terminal itself.

stdin and stdout may carry a message, so questions go to ``/dev/tty``; where there is none, nobody is asked.
"""

from __future__ import annotations

import contextlib
import os
import sys
from _thread import allocate_lock

from medcrypt_hsm.cli.output import visible
from medcrypt_hsm.errors import Failed, PinNeeded, UsageError
from medcrypt_hsm.sentences import t

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from medcrypt_hsm.errors import MedcryptError

TERMINAL = "/dev/tty"
PATIENCE = 1.0  # seconds of silence before a person is told what takes so long
TOUCH_SECONDS = 15  # that a YubiKey waits for a finger
# For an error that brings no hint of its own: by exit code.
_HINTS = {
    1: "see to it, and run the command again",
    2: "see 'medcrypt --help'",
    3: "see 'medcrypt token list'",
    4: "see 'medcrypt token list' before trying again",
    5: "do not act on it; ask the sender to send it again",
    6: "see 'medcrypt status'",
    7: "see 'medcrypt status --token NAME'",
}


def hint_of(error: MedcryptError) -> str:
    """What to do about it."""
    return error.hint or _HINTS[error.exit_code]


class Console:
    """stderr and the terminal. ``quiet`` silences conversation, never a warning or an error."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, may_ask: bool = True) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._may_ask = may_ask
        self._lock = allocate_lock()
        self._work: str | None = None
        self._shown = False
        self._percent = ""
        self._timer: threading.Timer | None = None

    # Saying

    def say(self, text: str) -> None:
        if not self.quiet:
            self._write(visible(text))

    def say_lines(self, text: str) -> None:
        """Several lines that this program made."""
        if not self.quiet:
            self._write("\n".join(visible(line) for line in text.rstrip("\n").split("\n")))

    def show_lines(self, text: str) -> None:
        """What a person must read before they agree: shown with --quiet too, and with --yes."""
        self._write("\n".join(visible(line) for line in text.rstrip("\n").split("\n")))

    def warn(self, text: str) -> None:
        self._write(t("warning: {text}", text=visible(text)))

    def detail(self, text: str) -> None:
        if self.verbose:
            self._write(visible(text))

    def _write(self, line: str) -> None:
        with self._lock:
            self._clear()
            sys.stdout.flush()  # where stdout and stderr go to one file, the order of lines is kept
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    # Progress

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Says what goes on when it lasts longer than a second; only at a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        self._start(what)
        try:
            yield
        finally:
            self._stop()

    def progress(self, done: int, total: int) -> None:
        """How far the work has come; shown once it has lasted as long as ``working`` waits."""
        percent = f" {100 * done // total} %" if total else ""
        if percent != self._percent:
            self._percent = percent
            if self._shown:
                self._show()

    @contextlib.contextmanager
    def printing(self) -> Iterator[None]:
        """No progress line while results are printed in the middle of the work."""
        with self._asking():
            yield

    # A finger

    @contextlib.contextmanager
    def waiting_for_touch(self, label: str) -> Iterator[None]:
        """Around what may wait for a finger: asks for it, with --quiet too, unless the token answers at once."""
        from medcrypt_hsm.cli.touch import Countdown

        line = t("touch token {token} now", token=visible(label))
        with self._asking(), Countdown(line, sys.stderr, TOUCH_SECONDS):
            yield

    def _start(self, what: str) -> None:
        import threading

        self._work = what
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._work = None
            self._clear()

    def _show(self) -> None:
        with self._lock:
            self._clear()
            if self._work is not None:
                sys.stderr.write(f"{self._work} …{self._percent}")
                sys.stderr.flush()
                self._shown = True

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            self._shown = False

    # Asking

    @property
    def can_ask(self) -> bool:
        if not self._may_ask:
            return False
        try:
            os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY))
        except OSError:
            return False
        return True

    def ask_secret(self, prompt: str) -> str:
        """Without echo. Raises PinNeeded where nobody can be asked."""
        if not self.can_ask:
            raise PinNeeded(t("{secret} is needed, and nobody can be asked for it", secret=prompt))
        import getpass

        with self._asking():
            try:
                answer = getpass.getpass(f"{visible(prompt)}: ")
            except EOFError:
                answer = ""
        if not answer:
            raise PinNeeded(t("{secret} was not given", secret=prompt))
        return answer

    def ask_line(self, prompt: str) -> str:
        """One line with echo. Raises UsageError where nobody can be asked, or nothing was typed."""
        if not self.can_ask:
            raise UsageError(
                t("{what} is needed, and nobody can be asked for it", what=prompt), "name a file: file:PATH"
            )
        with self._asking(), open(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0) as terminal:
            terminal.write(t("{what}: ", what=visible(prompt)).encode())
            answer = terminal.readline(4096).decode("utf-8", "replace").strip()
        if not answer:
            raise UsageError(t("{what} was not given", what=prompt), "type it, or name a file: file:PATH")
        return answer

    def ask_new_secret(self, prompt: str) -> str:
        """Twice, because nobody sees what is typed."""
        first = self.ask_secret(prompt)
        if self.ask_secret(t("{secret}, again", secret=prompt)) != first:
            raise UsageError("the two differ", "type the same twice; nothing was changed")
        return first

    def agree(self, question: str, word: str, *, yes: bool, what: str) -> None:
        """A person types ``word``, or ``--yes`` stands for it. Raises UsageError or Failed; then nothing happens."""
        if yes:
            return
        if not self.can_ask:
            raise UsageError(t("{action} needs a person's consent", action=what), "add --yes if you are sure")
        with self._asking(), open(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0) as terminal:
            terminal.write(
                t("{question}\nType {word} to go on: ", question=visible(question), word=visible(word)).encode()
            )
            answer = terminal.readline(4096).decode("utf-8", "replace").rstrip("\r\n")
        if answer != word:
            raise Failed(
                t("stopped: {word} was not typed; nothing was changed", word=word), "run the command again to do it"
            )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """No progress line while a person types; the waiting time begins anew afterwards."""
        work = self._work
        if work is not None:
            self._stop()
        try:
            yield
        finally:
            if work is not None:
                self._start(work)
