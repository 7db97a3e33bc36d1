"""``Vault.patients``: pairing with patients, and its end.

In: an open vault, patients' ids as the practice writes them. Out: ``Pairing``, and once ``NewPairing`` with the secret
that the patient's phone must get. Not here: how keys are shared (messages/patients.py), drawing a code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from medcrypt_hsm.api.base import Part
from medcrypt_hsm.lifecycle import holds, shred
from medcrypt_hsm.lifecycle.certificate import Certificate, base_of
from medcrypt_hsm.lifecycle.others import NO_OTHERS, Agree, OtherTokens, gather_all, yes
from medcrypt_hsm.messages import patients
from medcrypt_hsm.messages.patients import NewPairing, Pairing

Pairings: TypeAlias = list[Pairing]


class Patients(Part):
    """The patients of an open vault. Calls take turns with the vault's own."""

    def add(
        self,
        patient_id: str,
        *,
        label: str = "",
        protocol: str = "v2",
        secret: str | None = None,
        unconfirmed: bool = False,
    ) -> NewPairing:
        """Pair with a patient; the result's ``payload`` is what the phone must get, shown once."""
        with self._vault.working(entry_first=True) as unlocked:
            self._vault.open_month_if_due()
            return patients.add(
                unlocked, patient_id, label=label, protocol=protocol, secret=secret, unconfirmed=unconfirmed
            )

    def confirm(self, patient_id: str, code: str) -> Pairing:
        """Compare the six digits on the patient's screen; from then on messages flow."""
        with self._vault.working(entry_first=True) as unlocked:
            return patients.confirm(unlocked, patient_id, code)

    def list(self) -> Pairings:
        """Every patient's pairing in use. Reading names is recorded."""
        with self._vault.working(entry_first=True) as unlocked:
            return patients.list_all(unlocked)

    def show(self, patient_id: str) -> Pairings:
        """All pairings of one patient, oldest first."""
        with self._vault.working(entry_first=True) as unlocked:
            return patients.show(unlocked, patient_id)

    def qr(self, patient_id: str) -> NewPairing:
        """The pairing code again, until it expires or is confirmed."""
        with self._vault.working(entry_first=True) as unlocked:
            return patients.qr(unlocked, patient_id)

    def repair(self, patient_id: str) -> NewPairing:
        """Pair anew, where the phone or its key was lost; the old pairing ends when this one is confirmed."""
        with self._vault.working(entry_first=True) as unlocked:
            self._vault.open_month_if_due()
            return patients.repair(unlocked, patient_id)

    def remove(self, patient_id: str) -> Pairings:
        """End all pairings; old months stay readable as an archive. Which they were."""
        with self._vault.working() as unlocked:
            return patients.remove(
                unlocked, patient_id, lambda found: holds.refuse_held_secret(unlocked, patient_id, found)
            )

    def erase(
        self, patient_id: str, others: OtherTokens = NO_OTHERS, *, certificate: Path | None = None, agree: Agree = yes
    ) -> Certificate:
        """Destroy every key and everything else that is kept of a patient, but for what the log tells."""
        with self._vault.working(anchor=False) as unlocked:
            to = base_of(certificate)
            shred.check_erase(unlocked, patient_id)
            agree()
            with gather_all(unlocked, others) as opened:
                return shred.erase(unlocked, patient_id, opened, others, to)
