"""``Vault.chats``: exports of chat programs, read with the vault's keys.

    export = chats.open_export("telegram", Path("result.json"))
    for batch in vault.chats.read(conversation):
        …

In: an exported file. Out: lists of messages, as they are read. Each list was recorded, message by message, before it is
handed out, and the vault is free for others in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medcrypt_hsm.api.base import Desk, one_at_a_time
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.messages import decrypt, months
from medcrypt_hsm.messages.chats import Export, check_readable
from medcrypt_hsm.messages.chats.conversation import Conversation, Read
from medcrypt_hsm.messages.chats.telegram import TelegramExport
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.messages.plan import Dates
from medcrypt_hsm.messages.wire import Bad, Message
from medcrypt_hsm.month import Month

PROGRAMS = ("telegram", "whatsapp")


def begin(program: str, path: str | Path, *, date_order: str | None = None) -> Conversation:
    """An exported file that has a message of ours in it. Needs no vault. Raises UsageError, Malformed, OSError.

    ``date_order`` (WhatsApp alone): ``day-first`` or ``month-first``, where the file's dates do not tell.
    """
    if program not in PROGRAMS:
        raise UsageError(f"{program!r} is no chat program", f"give one of {', '.join(PROGRAMS)}")
    path = Path(path)
    check_readable(path)
    export: Export = TelegramExport(path) if program == "telegram" else WhatsAppExport(path, date_order)
    conversation = Conversation(export)
    conversation.begin()
    return conversation


class ChatDesk(Desk):
    """Reads conversations. Calls take turns with the vault's own."""

    def read(self, conversation: Conversation, *, month: Month | None = None) -> Iterator[list[Read]]:
        """Batches in the chat's order, as archive reading. ``month``: of version 1 messages, where their date is wrong.

        Raises what stops the whole import; what was handed out before is recorded and stands.
        """
        self._open_month()
        return conversation.read(lambda found, dates: self._decrypt(found, dates, month))

    @one_at_a_time
    def _open_month(self) -> None:
        with self._vault._work():
            self._vault.opened_month = months.open_if_due(self._unlocked)

    @one_at_a_time
    def _decrypt(self, found: Sequence[Message | Bad], dates: Sequence[Dates], month: Month | None) -> list[Opened]:
        opened = self._vault.opened_month
        with self._vault._work():
            results = decrypt.decrypt(self._unlocked, found, archive=True, month=month, dates=dates)
        self._vault.opened_month = opened
        return results
