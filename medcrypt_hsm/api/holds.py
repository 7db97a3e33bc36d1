"""``Vault.holds``: what must not be destroyed, and why.

In: an open vault, a patient or a month, a reason. Out: ``Held``. Not here: what a hold keeps from being destroyed
(lifecycle/holds.py).
"""

from __future__ import annotations

from typing import TypeAlias

from medcrypt_hsm.api.base import Part
from medcrypt_hsm.lifecycle import holds
from medcrypt_hsm.lifecycle.holds import Held
from medcrypt_hsm.month import Month

AllHeld: TypeAlias = list[Held]


class Holds(Part):
    """The holds of an open vault. Calls take turns with the vault's own."""

    def add(self, reason: str, *, patient: str = "", month: Month | None = None) -> Held:
        """Keep a patient from being erased, or a month from being shredded."""
        with self._vault.working() as unlocked:
            return holds.add(unlocked, reason, patient=patient, month=month)

    def remove(self, reason: str, *, patient: str = "", month: Month | None = None) -> Held:
        """Lift a hold, with all its reasons; what it was."""
        with self._vault.working() as unlocked:
            return holds.remove(unlocked, reason, patient=patient, month=month)

    def list(self) -> AllHeld:
        """Every hold. Reading them is recorded."""
        with self._vault.working() as unlocked:
            return holds.list_all(unlocked)
