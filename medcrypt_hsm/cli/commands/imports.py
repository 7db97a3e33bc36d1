"""``medcrypt import``: chats that other programs exported.

Results go out batch by batch, as they are read: a whole chat is never held in memory. What a chat says of itself, names
and dates, is shown after what was proven.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run, parse_month
from medcrypt_hsm.cli.texts import SENDERS, columns
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import Conversation, Read, Summary

_OUT = typer.Option(None, "--out", metavar="FILE", help="A new file: .jsonl for programs, .html for people.")
_MONTH = typer.Option(None, "--month", metavar="YYYY-MM", help="Of version 1 messages, if the dates are wrong.")


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Read chats that Telegram or WhatsApp exported.")
    app.add_typer(group, name="import")

    @command(group, "telegram")
    def telegram(
        context: typer.Context,
        file: Path = typer.Argument(metavar="FILE", help="Telegram Desktop's result.json."),
        out: Path | None = _OUT,
        month: str | None = _MONTH,
    ) -> None:
        """Decrypt every message in an export of Telegram Desktop, one chat or all of them."""
        _import(run_of(context), "telegram", file, out, month, None)

    @command(group, "whatsapp")
    def whatsapp(
        context: typer.Context,
        file: Path = typer.Argument(metavar="FILE", help="_chat.txt, or the zip that holds it."),
        out: Path | None = _OUT,
        month: str | None = _MONTH,
        date_order: str | None = typer.Option(
            None, "--date-order", metavar="ORDER", help="day-first or month-first, where the dates do not tell."
        ),
    ) -> None:
        """Decrypt every message in a chat that WhatsApp exported."""
        _import(run_of(context), "whatsapp", file, out, month, date_order)


def _import(run: Run, program: str, file: Path, out: Path | None, month: str | None, date_order: str | None) -> None:
    from medcrypt_hsm import Chat, find_in_export

    named = parse_month(month)
    if out is not None:
        Chat.check_save(out)
    with run.console.working("looking for messages"):
        conversation = find_in_export(file, program, date_order=date_order)
    summary = conversation.summary
    if summary.ambiguous:
        other = "month-first" if summary.date_order == "day-first" else "day-first"
        run.console.warn(
            t(
                "the dates do not tell whether the day or the month comes first; they are read {order}: "
                "if that is wrong, add --date-order {other}",
                order=summary.date_order,
                other=other,
            )
        )
    with run.open_for_work("importing", archive=True) as vault:
        chat = vault.chats.open(conversation)
        if out is not None:
            chat.save(out, month=named)
        else:
            _show(run, chat.read(month=named))
    if run.json:
        rest = {"summary": summary.document(), **run.month_opened}
        if out is not None:
            run.result({"out": str(out), **rest})
        else:
            output.write("], " + output.json_line(rest)[1:] + "\n")
    elif out is not None:
        run.result({}, t("{summary}\nwritten: {path}\n", summary=_words(summary), path=output.visible(str(out))))
    else:
        run.console.say(_words(summary))
    _raise_first(conversation)


def _show(run: Run, batches: Iterator[list[Read]]) -> None:
    width = columns() if sys.stdout.isatty() else None
    if run.json:
        output.write(f'{{"schema": {output.SCHEMA}, "messages": [')
    first = True
    for batch in batches:
        with run.console.printing():
            for read in batch:
                if run.json:
                    output.write(("" if first else ", ") + output.json_line(read.document()))
                else:
                    output.write(_block(read, width))
                first = False
            sys.stdout.flush()


def _block(read: Read, width: int | None) -> str:
    opened = read.opened
    lines = [_header(read)]
    if opened.text is not None:
        lines += output.framed(opened.text, width)
    elif opened.error is not None:
        said = t(
            "error: {message}\nhint: {hint}",
            message=output.visible(opened.error.message),
            hint=output.visible(opened.error.hint),
        )
        lines += output.framed(said, width)
    return "\n".join(lines) + "\n"


def _header(read: Read) -> str:
    """Begins where no line of a plaintext can, and ends with what only the chat says."""
    opened, origin = read.opened, read.origin
    if opened.error is not None:
        words = [t("message {number}", number=read.number), t("NOT READ")]
    else:
        words = [opened.patient, opened.month, SENDERS.get(opened.sender, t("sender unknown (v1 does not say)"))]
        words.append(t("message {number}", number=read.number))
        if opened.part != "1.1":
            words.append(opened.part)
        if opened.seen:
            words.append(t("seen before"))
    when = read.document()["date"] or t("no date")
    names = " / ".join(filter(None, (origin.chat, origin.sender))) or t("no name")
    if origin.edited is not None:
        words.append(t("in the chat: {time} edited, {names}", time=when, names=names))
    else:
        words.append(t("in the chat: {time}, {names}", time=when, names=names))
    return t("── {details}", details=joined(" · ", (output.visible(word) for word in words if word)))


def _words(summary: Summary) -> str:
    read = summary.ok + summary.seen
    if summary.seen:
        parts = [t("{count:,} read, {seen:,} of them seen before", count=read, seen=summary.seen)]
    else:
        parts = [t("{count:,} read", count=read)]
    if summary.bad:
        bad = ", ".join(f"{many:,} {name}" for name, many in summary.bad.items())
        parts.append(t("not read: {bad}", bad=bad))
    if summary.chats > 1:
        whole = t("{count:,} chat messages in {chats:,} chats", count=summary.chat_messages, chats=summary.chats)
    else:
        whole = t("{count:,} chat messages", count=summary.chat_messages)
    parts.append(t("{messages}, {others:,} without anything of MedCrypt's", messages=whole, others=summary.without))
    return joined("; ", parts)


def _raise_first(conversation: Conversation) -> None:
    """The first bad message's error, which gives the exit code."""
    summary = conversation.summary
    first = summary.first_error
    if first is None:
        return
    if summary.messages > 1:
        bad = sum(summary.bad.values())
        first.message = t(
            "{bad:,} of {count:,} messages could not be read; the first: {message}",
            bad=bad,
            count=summary.messages,
            message=first.message,
        )
    raise first
