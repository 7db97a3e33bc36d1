"""Checkpoints: the newest head as a C2SP signed note, made for the officer and read back (docs/spec/audit.md).

In: a head and its signature, or the bytes of a file from elsewhere. Out: the note's text, or a ``Checkpoint``; whatever
this program would not have written to the byte is refused. Not here: whether a log continues it (verify.py).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from medcrypt_hsm.crypto.p256 import der_signature, fingerprint, raw_signature, verify_signature
from medcrypt_hsm.errors import Malformed, NotAuthentic
from medcrypt_hsm.notation import parse_time
from medcrypt_hsm.sentences import t

LARGEST = 1 << 16  # bytes of a file that is read as a checkpoint
_FORM = re.compile(
    r"medcrypt/(?P<vault>[0-9a-f]{32})\n(?P<sequence>[1-9][0-9]{0,18})\n(?P<hash>[^\n]+)\n(?P<trust>[^\n]+)\n"
    "(?P<time>[^\n]+)\n\n\N{EM DASH} medcrypt/(?P=vault) (?P<signed>[^\n]+)\n"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head as a note tells it: not believed before ``verify``."""

    vault_id: bytes
    sequence: int
    hash: bytes
    trust: bytes
    time: str
    key_id: bytes = b""  # the first 4 bytes of the fingerprint of the key that signed
    signature: bytes = b""  # r || s, 64 bytes

    @property
    def text(self) -> str:
        """What is signed, with its final newline."""
        lines = (note_name(self.vault_id), str(self.sequence), _base64(self.hash), _base64(self.trust), self.time)
        return "\n".join(lines) + "\n"

    def encode(self) -> str:
        """The whole note."""
        return signed_note(self.text, note_name(self.vault_id), self.key_id, self.signature)

    @classmethod
    def parse(cls, note: bytes) -> Checkpoint:
        """Raises Malformed for anything but the bytes that ``encode`` makes."""
        try:
            found = _FORM.fullmatch(note.decode())
            if len(note) > LARGEST or found is None:
                raise ValueError("not a note of this form")
            signed = base64.b64decode(found["signed"], validate=True)
            parsed = cls(
                bytes.fromhex(found["vault"]),
                int(found["sequence"]),
                base64.b64decode(found["hash"], validate=True),
                base64.b64decode(found["trust"], validate=True),
                found["time"],
                signed[:4],
                raw_signature(signed[4:]),
            )
            parse_time(parsed.time)
            if not (len(parsed.hash) == len(parsed.trust) == 32 and parsed.sequence < 1 << 63):
                raise ValueError("a value is out of range")
            if parsed.encode().encode() != note:  # base64 and DER can be written in other ways too
                raise ValueError("not canonical")
        except (ValueError, binascii.Error) as exc:
            raise Malformed(
                "that is not a checkpoint of a MedCrypt vault, or not the whole of one",
                "give the file as 'medcrypt audit checkpoint' or a month's opening made it, unchanged",
            ) from exc
        return parsed

    def verify(self, keys: Iterable[bytes]) -> None:
        """The signature is that of one of ``keys`` (DER). Raises NotAuthentic."""
        for spki in keys:
            if fingerprint(spki)[:4] == self.key_id:  # which several may share
                try:
                    return verify_signature(spki, self.signature, self.text.encode())
                except NotAuthentic:
                    continue
        raise NotAuthentic(
            t(
                "the checkpoint of audit entry {entry} is not signed by a token of this log: it was altered, or "
                "is forged",
                entry=self.sequence,
            ),
            "compare it with the officer's copy; do not rely on this one",
        )


def signed_note(text: str, name: str, key_id: bytes, signature: bytes) -> str:
    """``text``, which ends with a newline, as a C2SP signed note. ``signature`` is r || s; a note carries DER."""
    return f"{text}\n\N{EM DASH} {name} {_base64(key_id + der_signature(signature))}\n"


def note_name(vault_id: bytes) -> str:
    """Under which a vault's audit keys sign notes."""
    return f"medcrypt/{vault_id.hex()}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
