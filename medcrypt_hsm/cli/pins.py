"""Where PINs and secrets come from: ``prompt``, ``env:VAR``, ``file:PATH``, ``fd:N``, for one token ``NAME=…``.

A PIN is never an argument, so a source that cannot be read is reported without repeating it: it may be a PIN that
somebody typed in the wrong place. What is read goes to one token once, and nowhere else.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from medcrypt_hsm.cli.console import Console
from medcrypt_hsm.errors import PinNeeded, UsageError
from medcrypt_hsm.sentences import t

if TYPE_CHECKING:
    from medcrypt_hsm import TokenInfo

_FORM = re.compile(r"(?:(?P<name>[^=:]+)=)?(?P<source>prompt|env:[^=\0]+|file:[^\0]+|fd:[0-9]{1,6})")
_LONGEST = 4096


class Source(NamedTuple):
    """One place to get a secret from; ``name`` is the token that it is for, "" for any."""

    name: str
    kind: str
    where: str = ""


def parse_source(text: str, option: str) -> Source:
    """Raises UsageError, which does not repeat the text."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(
            t("{option} takes prompt, env:VAR, file:PATH or fd:N, or one of these behind NAME=", option=option),
            "a PIN itself is never given on the command line",
        )
    kind, _, where = match["source"].partition(":")
    return Source(match["name"] or "", kind, where)


def split_sources(text: str) -> list[str]:
    """Several sources in one text, with spaces between them; or one, which may hold spaces itself."""
    pieces = text.split()
    return pieces if all(map(_FORM.fullmatch, pieces)) else [text]


def choose(texts: Sequence[str], option: str, names: Collection[str] = ()) -> Source | None:
    """The source for a token with one of these ``names``: one that names it, else one that names none."""
    sources = [parse_source(text, option) for text in texts]
    for source in sources:
        if source.name and source.name in names:
            return source
    return next((source for source in reversed(sources) if not source.name), None)


def read(source: Source, what: str, console: Console) -> str:
    """What the source holds, without one line end at its end. Raises PinNeeded or UsageError."""
    match source.kind:
        case "env":
            value = os.environ.get(source.where)
            if value is None:
                raise PinNeeded(
                    t(
                        "{secret} is not given: there is no environment variable {variable}",
                        secret=what,
                        variable=source.where,
                    )
                )
            data = os.fsencode(value)
        case "file":
            data = _read_file(source.where, what, console)
        case "fd":
            data = _read_line(int(source.where), what)
        case _:
            raise AssertionError("a prompt is asked, not read")
    if data.endswith(b"\n"):
        data = data[:-1].removesuffix(b"\r")
    text = data.decode("utf-8", "replace")
    if text.encode() != data or "\n" in text or "\0" in text:
        raise UsageError(
            t("{secret} from {kind}: is not one line of UTF-8 text", secret=what, kind=source.kind),
            "store it alone in one line",
        )
    if not text:
        raise PinNeeded(t("{secret} from {kind}: is empty", secret=what, kind=source.kind))
    return text


def _read_file(path: str, what: str, console: Console) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST + 1)
    except OSError as exc:
        raise PinNeeded(
            t("{secret} is not given: {path} cannot be read ({reason})", secret=what, path=path, reason=exc.strerror)
        ) from exc
    if len(data) > _LONGEST:
        raise UsageError(
            t("{secret}: {path} is too long to hold it", secret=what, path=path), "name a file that holds nothing else"
        )
    if stat.S_ISREG(mode) and mode & 0o077:
        console.warn(t("{path} holds a secret and can be read by others: run 'chmod 600 {path}'", path=path))
    return data


def _read_line(fd: int, what: str) -> bytes:
    """One line, byte by byte: the next line stays for the next secret, and the writer need not close."""
    data = bytearray()
    try:
        while len(data) <= _LONGEST and not data.endswith(b"\n"):
            byte = os.read(fd, 1)
            if not byte:
                break
            data += byte
    except OSError as exc:
        raise PinNeeded(
            t(
                "{secret} is not given: file descriptor {number} cannot be read ({reason})",
                secret=what,
                number=fd,
                reason=exc.strerror,
            )
        ) from exc
    return bytes(data)


def read_words(text: str, source: str | None, option: str, what: str, console: Console) -> str:
    """A name or a reason: ``option``'s text, or what ``option``-source names, which no other user can read.

    Raises UsageError or PinNeeded.
    """
    if source is None:
        return text
    if text:
        raise UsageError(
            t("{option} and {option}-source are both given", option=option), t("leave {option} out", option=option)
        )
    found = parse_source(source, f"{option}-source")
    return console.ask_line(what) if found.kind == "prompt" else read(found, what, console)


class Pins:
    """Gets each secret that a command needs from the source that its option, the environment or the config names."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def get(
        self, texts: Sequence[str], option: str, what: str, *, names: Collection[str] = (), new: bool = False
    ) -> str:
        """``new``: a secret that is being set is asked for twice."""
        source = choose(texts, option, names)
        if source is not None and source.kind != "prompt":
            self._console.detail(t("{secret} from {kind}:{place}", secret=what, kind=source.kind, place=source.where))
            return read(source, what, self._console)
        try:
            return self._console.ask_new_secret(what) if new else self._console.ask_secret(what)
        except PinNeeded as exc:
            exc.hint = t("give it with {option}, or run at a terminal", option=option)
            raise

    def prompt(
        self,
        texts: Sequence[str],
        option: str,
        *,
        what: str = "PIN",
        flags: str = "",
        whose: str = "",
        names: Collection[str] = (),
    ) -> Callable[[TokenInfo], str]:
        """For a library call: asked once, after the token has been found.

        ``flags``: what stands before those of ``TokenInfo.pin_flags`` that tell of this secret. ``whose``: who is to
        type it, where several people may. ``names``: what the token is called, beside what it says itself.
        """

        def ask(info: TokenInfo) -> str:
            self._warn(info, what, flags)
            known_as = {info.label, info.serial, info.name, *names}
            about = ", ".join(part for part in (info.model, info.serial) if part not in info.label)
            values = {"secret": what, "token": info.label, "about": about}
            if whose:
                question = t("{secret} of {owner}: token {token} ({about})", owner=whose, **values)
            else:
                question = t("{secret} of token {token} ({about})", **values)
            return self.get(texts, option, question, names=known_as)

        return ask

    def _warn(self, info: TokenInfo, what: str, flags: str) -> None:
        if f"{flags}final-try" in info.pin_flags:
            self._console.warn(
                t("this is the last try: a wrong {secret} locks token {token}", secret=what, token=info.label)
            )
        elif f"{flags}count-low" in info.pin_flags:
            left = str(info.pin_tries) if info.pin_tries is not None and not flags else t("few")
            self._console.warn(
                t(
                    "a wrong {secret} was entered before; token {token} has {left} tries left for it",
                    secret=what,
                    token=info.label,
                    left=left,
                )
            )
