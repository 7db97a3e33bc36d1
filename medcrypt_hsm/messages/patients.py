"""Pairing: how a patient and the practice come to share keys, and how that ends (docs/spec/messages.md).

In: an unlocked vault, a patient's id. Out: ``Pairing`` values, and of a new one what the phone must get: a pairing
secret is made here, shown once by the caller, and from then on only wrapped. Not here: drawing QR codes (cli/), the
payload's bytes (wire/pairing.py), and messages.
"""

from __future__ import annotations

import base64
import hmac
import math
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from medcrypt_hsm.errors import NotAuthentic, Refused, Unconfirmed, UsageError
from medcrypt_hsm.messages.months import drop_expired_codes
from medcrypt_hsm.messages.wire.v1 import check_patient_id
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import parse_time, timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import (
    PATIENT_ADD,
    PATIENT_CONFIRM,
    PATIENT_LIST,
    PATIENT_QR,
    PATIENT_REMOVE,
    PATIENT_REPAIR,
    PATIENT_SHOW,
)
from medcrypt_hsm.vault.change import Change
from medcrypt_hsm.vault.keyset import CHAIN, MESSAGE, PATIENT, QR, V1_SECRET
from medcrypt_hsm.vault.store.rows import SealedRow
from medcrypt_hsm.vault.unlocked import Unlocked

if TYPE_CHECKING:
    pass


PAIRING_MINUTES = 15
CODE_TRIES = 3
WEAK_BITS = 64
PENDING, ACTIVE, ENDED, REMOVED = "pending", "active", "ended", "removed"


class Pairing(NamedTuple):
    """What the vault knows of one pairing. ``id`` is the patient's, ``pairing`` the 8 bytes that travel (v2)."""

    pairing: bytes
    id: str
    label: str
    protocol: str
    state: str
    confirmed: bool
    first: str
    added: str
    replaces: str | None
    tries: int
    entry: int  # the audit entry that made it
    compromised: bool = False  # could somebody else follow its keys? Not kept: the trust state tells

    @property
    def readable(self) -> bool:
        """May its messages be read? A pending pairing's may not: nobody compared the code yet."""
        return self.state != PENDING

    @property
    def awaits_code(self) -> bool:
        return self.state == PENDING or (self.state == ACTIVE and self.protocol == "v2" and not self.confirmed)

    def value(self) -> dict[str, object]:
        return {name: value for name, value in self._asdict().items() if name not in ("pairing", "compromised")}


class NewPairing(NamedTuple):
    """A fresh pairing: what the patient's phone must get. ``payload`` is the secret; show it once."""

    pairing: Pairing
    payload: str
    expires: datetime
    weak: bool = False

    def __repr__(self) -> str:
        return f"NewPairing({self.pairing.id})"


class PairingOptions(NamedTuple):
    """How a pairing is to be made. ``secret`` is for v1 only; None makes one."""

    label: str = ""
    protocol: str = "v2"
    secret: str | None = None
    unconfirmed: bool = False


def add(
    unlocked: Unlocked,
    patient_id: str,
    *,
    label: str = "",
    protocol: str = "v2",
    secret: str | None = None,
    unconfirmed: bool = False,
) -> NewPairing:
    """Pair with a patient. ``secret`` is for v1 only; None makes one. Raises Refused if there is a pairing already."""
    check_patient_id(patient_id)
    if protocol == "v2" and secret is not None:
        raise UsageError("a v2 pairing makes its own secret", "leave --secret-source out, or add --protocol v1")
    if protocol == "v1" and unconfirmed:
        raise UsageError("a v1 pairing has no code to confirm", "leave --unconfirmed out")
    existing = pairings_of(unlocked, patient_id)
    with unlocked.change(PATIENT_ADD, patient_id) as change:
        _must_be(unlocked, patient_id, existing)
        if any(p.protocol == protocol and p.state == ACTIVE for p in existing):
            again = t("make a new pairing with 'medcrypt patient repair {patient}'", patient=patient_id)
            raise Refused(t("patient {patient} is paired already", patient=patient_id), again)
        if protocol == "v1" and any(p.protocol == "v2" and (p.confirmed or p.state == ACTIVE) for p in existing):
            raise Refused(
                t("patient {patient} is paired with v2; there is no way back to v1", patient=patient_id),
                t("make a new v2 pairing with 'medcrypt patient repair {patient}'", patient=patient_id),
            )
        old = next((p for p in reversed(existing) if p.state == ACTIVE), None)  # an active v1 pairing may move to v2
        label = label or (old.label if old is not None else "")
        options = PairingOptions(label, protocol, secret, unconfirmed)
        return make_pairing(unlocked, change, patient_id, options, old, existing)


def repair(unlocked: Unlocked, patient_id: str) -> NewPairing:
    """A new pairing for a patient whose phone or key was lost; the old one ends when this one is confirmed."""
    existing = pairings_of(unlocked, patient_id)
    with unlocked.change(PATIENT_REPAIR, patient_id) as change:
        _must_be(unlocked, patient_id, existing)
        old = next((p for p in reversed(existing) if p.state == ACTIVE), None) or find(unlocked, patient_id)
        if old.state == REMOVED:
            raise Refused(
                t("patient {patient} was removed", patient=patient_id),
                t("pair again with 'medcrypt patient add {patient}'", patient=patient_id),
            )
        options = PairingOptions(old.label, old.protocol)
        return make_pairing(unlocked, change, patient_id, options, old, existing)


def _must_be(unlocked: Unlocked, patient_id: str, existing: list[Pairing]) -> None:
    """Under the write lock: nobody paired with this patient since they were looked at."""
    if pairings_of(unlocked, patient_id) != existing:
        raise Refused(
            t("another command changed the pairings of {patient} meanwhile", patient=patient_id),
            t("look at them with 'medcrypt patient show {patient}'", patient=patient_id),
        )


def make_pairing(
    unlocked: Unlocked,
    change: Change,
    patient_id: str,
    options: PairingOptions,
    replaces: Pairing | None,
    existing: list[Pairing],
) -> NewPairing:
    """Keys, secret and code of a new pairing, inside a change; nothing is checked.

    ``existing``: what the patient has so far.
    """
    label, protocol, secret, unconfirmed = options
    drop_expired_codes(unlocked, change)
    now = parse_time(change.time)
    expires = now.replace(second=0) + timedelta(minutes=PAIRING_MINUTES)
    pairing = Pairing(
        pairing=os.urandom(8),
        id=patient_id,
        label=label,
        protocol=protocol,
        state=ACTIVE if protocol == "v1" or unconfirmed else PENDING,
        confirmed=protocol == "v1",
        first=str(unlocked.state.newest_month),
        added=change.time,
        replaces=replaces.pairing.hex() if replaces is not None else None,
        tries=0,
        entry=change.sequence,
    )
    change.detail |= {"pairing": pairing.pairing.hex(), "protocol": protocol, "unconfirmed": unconfirmed}
    for old in existing:  # an earlier code that was never confirmed is void now
        if old.state == PENDING:
            _end(unlocked, change, old, ENDED)
    if protocol == "v1":
        payload, check = secret if secret is not None else _generate_v1_secret(), None
        change.put_sealed(unlocked.keyset.seal(V1_SECRET, pairing.pairing, change.sequence, {"secret": payload}))
    else:
        payload, check = _first_keys(unlocked, change, pairing, expires)
    qr = {"check": check, "expires": timestamp(expires), "payload": payload}
    change.put_sealed(unlocked.keyset.seal(QR, pairing.pairing, change.sequence, qr))
    _put(unlocked, change, pairing)
    if pairing.state == ACTIVE:
        _end_replaced(unlocked, change, pairing)
    return NewPairing(pairing, payload, expires, secret is not None and is_weak(payload))


def _first_keys(unlocked: Unlocked, change: Change, pairing: Pairing, expires: datetime) -> tuple[str, str]:
    """A v2 pairing's secret, its first message key and chain key wrapped; the payload for the phone, and the code."""
    from medcrypt_hsm.messages.wire.pairing import PairingPayload
    from medcrypt_hsm.vault.ratchet import check_code, derive_message_key

    month = Month.parse(pairing.first)
    from medcrypt_hsm.crypto.secret import Secret

    with Secret(os.urandom(32)) as chain_key:
        with derive_message_key(chain_key, pairing.pairing, month) as message_key:
            change.put_records(
                unlocked.keyset.wrap(purpose, pairing.pairing, pairing.first, change.sequence, key)
                for purpose, key in ((CHAIN, chain_key), (MESSAGE, message_key))
            )
        payload = PairingPayload(pairing.pairing, month, expires, chain_key.value).encode()
        return payload, check_code(chain_key, pairing.pairing)


def confirm(unlocked: Unlocked, patient_id: str, code: str) -> Pairing:
    """Compare the code that the patient's program shows. Raises NotAuthentic if it differs, Refused if too late.

    A code is accepted once, within 15 minutes. Three wrong ones void the pairing.
    """
    digits = "".join(code.split())
    if not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
        raise UsageError("a check code has six digits", "read it from the patient's screen")
    with unlocked.change(PATIENT_CONFIRM, patient_id) as change:
        again = t("make a new code with 'medcrypt patient repair {patient}'", patient=patient_id)
        newest = find(unlocked, patient_id)
        pairing = next((p for p in reversed(pairings_of(unlocked, patient_id)) if p.awaits_code), None)
        if pairing is None:
            if newest.state == ACTIVE:
                raise Refused(
                    t("patient {patient} is confirmed already; a code is accepted once", patient=patient_id),
                    t(
                        "if this is another phone, make a new pairing with 'medcrypt patient repair {patient}'",
                        patient=patient_id,
                    ),
                )
            if newest.tries >= CODE_TRIES:
                raise Refused(
                    t("the pairing of {patient} is void after {most} wrong codes", patient=patient_id, most=CODE_TRIES),
                    again,
                )
            raise Refused(
                t("patient {patient} has no pairing to confirm", patient=patient_id),
                "pair again with 'medcrypt patient repair ID'",
            )
        qr = _open_qr(unlocked, pairing)
        now = unlocked.clock.now()
        if qr is None or now >= parse_time(qr["expires"]):
            raise Refused(t("the pairing code of {patient} has expired", patient=patient_id), again)
        change.detail["pairing"] = pairing.pairing.hex()
        right = hmac.compare_digest(digits, qr["check"])
        if right:
            pairing = pairing._replace(state=ACTIVE, confirmed=True, tries=0)
            change.delete_sealed(QR, pairing.pairing)
            _end_replaced(unlocked, change, pairing)
        else:
            pairing = pairing._replace(tries=pairing.tries + 1)
            change.outcome = NotAuthentic.name
        if pairing.tries >= CODE_TRIES:
            _end(unlocked, change, pairing, ENDED)  # void: nothing is left to show, confirm or write under
        else:
            _put(unlocked, change, pairing)
    if not right:
        if pairing.tries >= CODE_TRIES:
            raise NotAuthentic(
                t("that is not the code of {patient}'s pairing, which is void now", patient=patient_id), again
            )
        raise NotAuthentic(
            t(
                "that is not the code of {patient}'s pairing ({left} of {most} tries left)",
                patient=patient_id,
                left=CODE_TRIES - pairing.tries,
                most=CODE_TRIES,
            ),
            t(
                "read it again from the patient's screen; if it still differs, something else was scanned: {again}",
                again=again,
            ),
        )
    return pairing


def list_all(unlocked: Unlocked) -> list[Pairing]:
    """Every pairing, oldest first; reading names is recorded."""
    with unlocked.change(PATIENT_LIST) as change:
        pairings = [_open(unlocked, row) for row in unlocked.file.all_sealed(PATIENT)]
        change.detail["pairings"] = len(pairings)
    return sorted(pairings, key=lambda p: (p.added, p.id))


def show(unlocked: Unlocked, patient_id: str) -> list[Pairing]:
    """All pairings of one patient, oldest first; recorded."""
    with unlocked.change(PATIENT_SHOW, patient_id):
        find(unlocked, patient_id)
        return pairings_of(unlocked, patient_id)


def qr(unlocked: Unlocked, patient_id: str) -> NewPairing:
    """The code again, until it expires or is confirmed. Raises Refused."""
    with unlocked.change(PATIENT_QR, patient_id):
        find(unlocked, patient_id)
        again = t("make a new one with 'medcrypt patient repair {patient}'", patient=patient_id)
        for pairing in reversed(pairings_of(unlocked, patient_id)):
            value = _open_qr(unlocked, pairing)
            if value is not None and unlocked.clock.now() < parse_time(value["expires"]):
                return NewPairing(pairing, value["payload"], parse_time(value["expires"]))
        raise Refused(
            t("there is no code of {patient} to show: it has expired or was confirmed", patient=patient_id), again
        )


def remove(
    unlocked: Unlocked, patient_id: str, may: Callable[[list[Pairing]], None] = lambda pairings: None
) -> list[Pairing]:
    """End all of a patient's pairings. The months' message keys stay, for archive reading; a v1 secret goes.

    ``may`` raises if they must not be removed.
    """
    with unlocked.change(PATIENT_REMOVE, patient_id) as change:
        find(unlocked, patient_id)
        may(pairings_of(unlocked, patient_id))
        removed = []
        for pairing in pairings_of(unlocked, patient_id):
            if pairing.state != REMOVED:
                _end(unlocked, change, pairing, REMOVED)
                removed.append(pairing)
        if not removed:
            raise Refused(t("patient {patient} was removed already", patient=patient_id))
        change.detail["pairings"] = [pairing.pairing.hex() for pairing in removed]
    return removed


def compromised(unlocked: Unlocked) -> list[Pairing]:
    """The pairings in use that others could follow; not recorded, for it is part of every status."""
    if not unlocked.state.retired and not unlocked.state.uses:
        return []
    return [p for row in unlocked.file.all_sealed(PATIENT) if (p := _open(unlocked, row)).compromised]


def find(unlocked: Unlocked, patient_id: str) -> Pairing:
    """The newest pairing of a patient. Raises UsageError if there is none."""
    pairings = pairings_of(unlocked, patient_id)
    if not pairings:
        raise UsageError(
            t("there is no patient {patient!r} in this vault", patient=patient_id), "see 'medcrypt patient list'"
        )
    return pairings[-1]


def writable(unlocked: Unlocked, patient_id: str) -> Pairing:
    """The pairing that messages to this patient are written under. Raises Unconfirmed, Refused or UsageError."""
    pairings = pairings_of(unlocked, patient_id)
    active = [p for p in pairings if p.state == ACTIVE]
    if active:
        return max(active, key=lambda p: (p.protocol, pairings.index(p)))  # v2 before v1, newer before older
    newest = find(unlocked, patient_id)
    if newest.state == PENDING:
        raise Unconfirmed(t("the pairing with {patient} is not confirmed yet", patient=patient_id))
    raise Refused(
        t("the pairing with {patient} has ended", patient=patient_id), "pair again with 'medcrypt patient add'"
    )


def by_pairing(unlocked: Unlocked, pairing: bytes) -> Pairing | None:
    """By the 8 bytes that a message carries."""
    row = unlocked.file.sealed(PATIENT, pairing)
    return None if row is None else _open(unlocked, row)


def v1_secret(unlocked: Unlocked, pairing: Pairing) -> str | None:
    """None where it was removed, or never was."""
    row = unlocked.file.sealed(V1_SECRET, pairing.pairing)
    return None if row is None else str(unlocked.keyset.open(row)["secret"])


def pairings_of(unlocked: Unlocked, patient_id: str) -> list[Pairing]:
    """A patient's, oldest first; none for one that nobody knows."""
    rows = unlocked.file.sealed_of(unlocked.keyset.lookup(patient_id))
    # Times are to the second: of two pairings made in the same second, the one that still counts is the newer.
    return sorted((_open(unlocked, row) for row in rows), key=lambda p: (p.added, p.state in (PENDING, ACTIVE)))


def _open(unlocked: Unlocked, row: SealedRow) -> Pairing:
    pairing = Pairing(row.pairing, **unlocked.keyset.open(row))
    in_use = pairing.state in (PENDING, ACTIVE)
    # A machine that had the keyset could have sealed another ``entry`` into it, but not have changed its sequence.
    entry = min(pairing.entry, row.sequence)
    return pairing._replace(compromised=in_use and unlocked.state.is_compromised(entry, pairing.added))


def _open_qr(unlocked: Unlocked, pairing: Pairing) -> dict[str, str] | None:
    row = unlocked.file.sealed(QR, pairing.pairing)
    return None if row is None else unlocked.keyset.open(row)


def _put(unlocked: Unlocked, change: Change, pairing: Pairing) -> None:
    lookup = unlocked.keyset.lookup(pairing.id)
    change.put_sealed(unlocked.keyset.seal(PATIENT, pairing.pairing, change.sequence, pairing.value(), lookup=lookup))


def _end_replaced(unlocked: Unlocked, change: Change, pairing: Pairing) -> None:
    """The new pairing counts: the one that it replaces ends. v1 below v2 keeps its secret, for archive reading."""
    for old in pairings_of(unlocked, pairing.id):
        if old.pairing != pairing.pairing and old.state in (ACTIVE, PENDING):
            _end(unlocked, change, old, ENDED)


def _end(unlocked: Unlocked, change: Change, pairing: Pairing, state: str) -> None:
    # Nobody ever compared a pending pairing's code, so nothing may be read under it, not even as an archive.
    for purpose in (CHAIN, MESSAGE) if pairing.state == PENDING else (CHAIN,):
        for record in unlocked.file.records(purpose, pairing.pairing):
            change.delete_record(purpose, record.pairing, record.month)
    change.delete_sealed(QR, pairing.pairing)
    if state == REMOVED:
        change.delete_sealed(V1_SECRET, pairing.pairing)
    _put(unlocked, change, pairing._replace(state=state))


def _generate_v1_secret() -> str:
    """160 random bits as base32: any phone's keyboard can type it."""
    return base64.b32encode(os.urandom(20)).decode()


def is_weak(secret: str) -> bool:
    """Could the secret be guessed? An upper bound of its entropy from length and kinds of characters."""
    kinds = (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum())
    sizes = (26, 26, 10, 32)
    alphabet = sum(size for kind, size in zip(kinds, sizes, strict=True) if any(map(kind, secret)))
    distinct = len(set(secret))
    return distinct < 8 or len(secret) * math.log2(max(alphabet, 2)) < WEAK_BITS
