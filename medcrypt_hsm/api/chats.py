"""``Vault.chats``: exports of chat programs, read with the vault's keys.

    for batch in vault.chats.open("result.json").read():
        …

In: an exported file. Out: lists of messages, as they are read. Each list was recorded, message by message, before it is
handed out, and the vault is free for others in between. Not here: what an export looks like (messages/chats/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medcrypt_hsm.api.base import OpenVault, Part
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.messages import decrypt
from medcrypt_hsm.messages.chats import Export, check_readable, saving
from medcrypt_hsm.messages.chats.conversation import Conversation, Read, Summary
from medcrypt_hsm.messages.chats.telegram import TelegramExport
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.messages.plan import Dates
from medcrypt_hsm.messages.wire import Bad, Message
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t

PROGRAMS = ("telegram", "whatsapp")
_WRITTEN_BY = {".json": "telegram", ".txt": "whatsapp", ".zip": "whatsapp"}


def find_in_export(path: str | Path, program: str | None = None, *, date_order: str | None = None) -> Conversation:
    """An exported file that has a message of ours in it. Needs no vault. Raises UsageError, Malformed, OSError.

    ``program``: ``telegram`` or ``whatsapp``; left out, the file's ending tells. ``date_order`` (WhatsApp alone):
    ``day-first`` or ``month-first``, where the file's dates do not tell.
    """
    path = Path(path)
    program = program or _WRITTEN_BY.get(path.suffix.lower(), "")
    if program not in PROGRAMS:
        raise UsageError(
            t("{program!r} is no chat program", program=program),
            t("give one of {programs}", programs=", ".join(PROGRAMS)),
        )
    check_readable(path)
    export: Export = TelegramExport(path) if program == "telegram" else WhatsAppExport(path, date_order)
    conversation = Conversation(export)
    conversation.begin()
    return conversation


class Chats(Part):
    """Exported chats, for an open vault."""

    def open(
        self, export: str | Path | Conversation, program: str | None = None, *, date_order: str | None = None
    ) -> Chat:
        """One to read: a file as ``find_in_export`` takes it, or what that found in one."""
        if not isinstance(export, Conversation):
            export = find_in_export(export, program, date_order=date_order)
        return Chat(self._vault, export)


class Chat:
    """One exported chat. Calls take turns with the vault's own."""

    def __init__(self, vault: OpenVault, conversation: Conversation) -> None:
        self._vault = vault
        self._conversation = conversation

    @property
    def summary(self) -> Summary:
        """What the file holds; complete when all was read."""
        return self._conversation.summary

    def read(self, *, month: Month | None = None) -> Iterator[list[Read]]:
        """Batches in the chat's order, as archive reading. ``month``: of version 1 messages, where their date is wrong.

        Raises what stops the whole import; what was handed out before is recorded and stands.
        """
        with self._vault.working():
            self._vault.open_month_if_due()
        return self._conversation.read(lambda found, dates: self._decrypt(found, dates, month))

    def _decrypt(self, found: Sequence[Message | Bad], dates: Sequence[Dates], month: Month | None) -> list[Opened]:
        with self._vault.working() as unlocked:
            return decrypt.decrypt(unlocked, found, archive=True, month=month, dates=dates)

    @staticmethod
    def check_save(out: Path) -> None:
        """Before a vault is opened: may ``save`` write there? Raises UsageError."""
        saving.check(out)

    def save(self, out: Path, *, month: Month | None = None) -> None:
        """All of it, in a new file that is whole or not there: .jsonl for programs, .html for people."""
        saving.save(out, self.read(month=month), self.summary)
