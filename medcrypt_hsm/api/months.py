"""``Vault.months``: months are opened, kept as long as the policy says, and shredded.

In: an open vault, and which months are meant. Out: the checkpoint of what opened, or a certificate of what was
destroyed. Not here: how keys step from month to month (messages/months.py), and a re-key (lifecycle/).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcrypt_hsm.api.base import Part
from medcrypt_hsm.lifecycle import shred
from medcrypt_hsm.lifecycle.certificate import Certificate, base_of
from medcrypt_hsm.lifecycle.holds import Held
from medcrypt_hsm.lifecycle.others import NO_OTHERS, Agree, OtherTokens, gather_all, yes
from medcrypt_hsm.messages import months
from medcrypt_hsm.messages.months import MonthsOpened
from medcrypt_hsm.month import Month


class Months(Part):
    """The months of an open vault. Calls take turns with the vault's own."""

    def due(self) -> tuple[Month, ...]:
        """From the one after the newest opened month to the clock's; empty when nothing is due."""
        with self._vault.working(anchor=False) as unlocked:
            return months.months_due(unlocked)

    def open(self, to: Month | None = None) -> MonthsOpened | None:
        """Open the clock's month; several at once only when ``to`` names it. None if nothing is due.

        What opened is returned, and not told to ``on_month_opened`` as well.
        """
        with self._vault.working() as unlocked:
            if to is None:
                return months.open_if_due(unlocked)
            if not months.months_due(unlocked) and to == unlocked.clock.month():
                return None
            return months.open_months(unlocked, to)

    def past_retention(self) -> tuple[list[Month], dict[Month, Held]]:
        """Those that the policy keeps no longer, and those of them that a hold keeps, with the hold."""
        with self._vault.working(anchor=False) as unlocked:
            return shred.due(unlocked)

    def shred(
        self,
        wanted: Sequence[Month],
        others: OtherTokens = NO_OTHERS,
        *,
        certificate: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """Destroy every key of these months, in every backup too."""
        with self._vault.working(anchor=False) as unlocked:
            to = base_of(certificate)
            shred.check_shred(unlocked, wanted)
            agree()
            with gather_all(unlocked, others) as opened:
                return shred.shred(unlocked, wanted, opened, others, to)
