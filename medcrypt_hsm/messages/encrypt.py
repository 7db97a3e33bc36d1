"""The main path in the other direction: a text becomes wire text for a patient.

Seal, record, release: the entry commits before any wire text is returned. In: an unlocked vault, a patient's id, a
text. Out: one wire text a part. Not here: opening months (months.py), the formats (wire/).
"""

from __future__ import annotations

import os
from contextlib import suppress

from medcrypt_hsm.crypto.handles import AeadKey
from medcrypt_hsm.errors import Refused, UsageError, VaultDamaged
from medcrypt_hsm.messages import patients
from medcrypt_hsm.messages.patients import Pairing
from medcrypt_hsm.messages.plan import v1_month_key
from medcrypt_hsm.messages.record import record_written
from medcrypt_hsm.messages.wire import Message, MessageV1, MessageV2, Part, v1, v2
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import MESSAGE_ENCRYPT
from medcrypt_hsm.vault.keyset import MESSAGE
from medcrypt_hsm.vault.unlocked import Unlocked

KEY_USES = 1 << 20  # texts under one key before it encrypts no more; NIST SP 800-38D section 8.3 allows 2^32


def encrypt(unlocked: Unlocked, patient_id: str, text: str) -> list[str]:
    """Wire texts, one a part, for a patient, under the newest open month.

    The entry commits before any wire text is returned. Raises Refused, UsageError and what stops the command.
    """
    month = unlocked.state.newest_month
    with suppress(Refused, UsageError):  # it is raised again below, and recorded
        pairing = patients.writable(unlocked, patient_id)
        if pairing.protocol == "v1" and (derived := v1_month_key(unlocked, pairing, month)) is not None:
            derived.destroy()  # only its record was needed: at the month's first use it was derived and recorded here
    with unlocked.change(MESSAGE_ENCRYPT, patient_id) as change:
        pairing = patients.writable(unlocked, patient_id)
        key = writing_key(unlocked, pairing, month)
        try:
            v1_written = pairing.protocol == "v1"
            texts = _seal_v1(key, patient_id, text) if v1_written else _seal_v2(key, pairing, month, text)
        finally:
            key.destroy()
        record_written(unlocked, change, pairing, month, texts)
    return [message.text for message in texts]


def writing_key(unlocked: Unlocked, pairing: Pairing, month: Month) -> AeadKey:
    """To encrypt under now. Raises VaultDamaged, or Refused where it has encrypted enough."""
    row = unlocked.rows.record(MESSAGE, pairing.pairing, str(month))
    if row is None:
        raise VaultDamaged(
            t("the key of {patient} for {month} is missing from the vault", patient=pairing.id, month=month)
        )
    if unlocked.file.seen_count(pairing.pairing, "" if pairing.protocol == "v1" else str(month)) >= KEY_USES:
        raise Refused(
            t("the key of {patient} for {month} has encrypted enough", patient=pairing.id, month=month),
            t("make a new pairing: 'medcrypt patient repair {patient}'", patient=pairing.id),
        )
    return unlocked.keyset.aead_key(row)


def _seal_v1(key: AeadKey, patient_id: str, text: str) -> list[Message]:
    nonce = os.urandom(12)
    sealed = key.seal(nonce, text.encode(), patient_id.encode())
    return [MessageV1(patient_id, nonce, sealed, v1.encode(patient_id, nonce, sealed))]


def _seal_v2(key: AeadKey, pairing: Pairing, month: Month, text: str) -> list[Message]:
    chunks = v2.split(text)
    message_id = os.urandom(v2.MESSAGE_ID_BYTES) if len(chunks) > 1 else None
    messages: list[Message] = []
    for index, chunk in enumerate(chunks, 1):
        part, nonce = Part(index, len(chunks), message_id), os.urandom(12)
        sealed = key.seal(nonce, chunk, v2.header(pairing.pairing, month, "d", part))
        wire_text = v2.encode(pairing.pairing, month, "d", part, nonce, sealed)
        messages.append(MessageV2(pairing.pairing, month, "d", part, nonce, sealed, wire_text))
    return messages
