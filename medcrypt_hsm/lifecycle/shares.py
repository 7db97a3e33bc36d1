"""A share on its custodian's token: made there, read back, opened, destroyed (docs/spec/breakglass.md).

In: an open token, and a share's y. Out: ``ShareRecord``, which is public, and y again as a ``Secret`` that matched its
commitment. Not here: whose token it may be, and what an opened share is for (breakglass/).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import Malformed, NotAuthentic, TokenUnfit, VaultRolledBack
from medcrypt_hsm.notation import canonical, ctx
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import approval_name, share_kek_name, share_name
from medcrypt_hsm.vault.audit.rules import Rule
from medcrypt_hsm.vault.audit.statements import is_name
from medcrypt_hsm.vault.audit.trust_custody import CEREMONY_BYTES, MOST

SHARE = "medcrypt share "


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """What lies on a custodian's token beside its two keys. Nothing of it is secret, nor signed."""

    vault_id: bytes
    ceremony: bytes
    audit_key: bytes  # fingerprint of that of the token with which the ceremony was held
    x: int
    threshold: int
    of: int
    name: str  # the custodian's
    entry: int  # the newest audit entry when it was made, and its hash: in which history that was
    hash: bytes
    commitment: bytes = b""
    wrapped: bytes = b""

    def commit_to(self, y: bytes) -> bytes:
        numbers = (bytes([number]) for number in (self.x, self.threshold, self.of))
        parts = (self.vault_id, self.ceremony, self.audit_key, *numbers, y)
        return sha256(ctx("medcrypt/share", *parts)).digest()

    @property
    def info(self) -> bytes:
        """What a wrapped y is bound to, where the wrapping binds anything."""
        return ctx("medcrypt/share-kek", self.vault_id, self.ceremony, bytes([self.x]))

    def encode(self) -> bytes:
        return canonical(
            {
                "audit_key": self.audit_key.hex(),
                "ceremony": self.ceremony.hex(),
                "commitment": self.commitment.hex(),
                "entry": self.entry,
                "hash": self.hash.hex(),
                "name": self.name,
                "of": self.of,
                "threshold": self.threshold,
                "vault": self.vault_id.hex(),
                "version": 1,
                "wrapped": self.wrapped.hex(),
                "x": self.x,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> ShareRecord:
        """Raises Malformed for anything but the bytes that ``encode`` makes."""
        try:
            value: Any = json.loads(data)
            sizes = {"vault": 16, "ceremony": CEREMONY_BYTES, "audit_key": 32, "commitment": 32, "hash": 32}
            octets = {member: bytes.fromhex(value[member]) for member in (*sizes, "wrapped")}
            record = cls(
                octets["vault"],
                octets["ceremony"],
                octets["audit_key"],
                int(value["x"]),
                int(value["threshold"]),
                int(value["of"]),
                str(value["name"]),
                int(value["entry"]),
                octets["hash"],
                octets["commitment"],
                octets["wrapped"],
            )
            fits = 1 <= record.x <= record.of and 2 <= record.threshold <= record.of <= MOST and is_name(record.name)
            if not fits or any(len(octets[m]) != size for m, size in sizes.items()) or record.encode() != data:
                raise ValueError("not a share record")
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise Malformed(
                "the share record on the token cannot be read: it was altered",
                "tell the security officer: this custodian's share has to be made anew",
            ) from exc
        return record


def place(token: Token, record: ShareRecord, y: bytes) -> ShareRecord:
    """Seal ``y`` under the token's share KEK, which is there, and keep the record on the token."""
    kek = share_kek_name(record.vault_id, record.ceremony)
    made = replace(record, commitment=record.commit_to(y), wrapped=token.wrap_key(kek, y, record.info))
    token.put_object(share_name(record.vault_id, record.ceremony), made.encode())
    return made


def read_record(token: Token, vault_id: bytes, ceremony: bytes) -> ShareRecord:
    """Raises TokenUnfit for a token without it, Malformed."""
    found = token.read_objects(share_name(vault_id, ceremony))
    if not found:
        raise TokenUnfit(
            t("token {token} holds no share of ceremony {ceremony}", token=token.info.label, ceremony=ceremony.hex()),
            "see 'medcrypt breakglass drill --token URI OUT' for what it holds",
        )
    record = ShareRecord.parse(found[-1])
    if (record.vault_id, record.ceremony) != (vault_id, ceremony):
        raise Malformed("the share record on the token is another's", "tell the security officer")
    return record


def open_share(token: Token, record: ShareRecord, commitment: bytes | None = None) -> Secret:
    """y, in locked host memory: the caller wipes it. ``commitment``: the vault's, which is used and not the record's.

    Raises NotAuthentic, naming the custodian, for a share that does not match, TokenUnfit for a token without its KEK.
    """
    try:
        y = token.unwrap_key(share_kek_name(record.vault_id, record.ceremony), record.wrapped, record.info)
    except KeyError as exc:
        raise TokenUnfit(
            t("token {token} holds no KEK for the share of {custodian}", token=token.info.label, custodian=record.name),
            "the share cannot be opened any more: tell the security officer",
        ) from exc
    except NotAuthentic as exc:
        raise _altered(record) from exc
    if not hmac.compare_digest(record.commit_to(y.value), record.commitment if commitment is None else commitment):
        y.wipe()
        raise _altered(record)
    return y


def _altered(record: ShareRecord) -> NotAuthentic:
    return NotAuthentic(
        t(
            "the share of {custodian} was altered, or is another's: it does not match its commitment ({rule})",
            custodian=record.name,
            rule=Rule.BG_6,
        ),
        "tell the security officer: this custodian's share has to be made anew",
    )


def records_on(token: Token) -> list[ShareRecord]:
    """Every share on the token, of whatever vault. Raises Malformed."""
    names = [name for name in token.names() if name.startswith(SHARE)]
    return [ShareRecord.parse(values[-1]) for name in names if (values := token.read_objects(name))]


def ceremonies_on(token: Token, vault_id: bytes) -> list[bytes]:
    """The ceremonies of this vault of which the token holds anything: a share, or what was to become one."""
    found, names = set(), token.names()
    for what in ("share-kek", "approval", "share"):
        prefix = f"medcrypt {what} {vault_id.hex()} "
        for name in names:
            if name.startswith(prefix) and len(rest := name.removeprefix(prefix)) == 2 * CEREMONY_BYTES:
                found.add(bytes.fromhex(rest))
    return sorted(found)


def destroy(token: Token, vault_id: bytes, ceremony: bytes) -> None:
    """All three objects: the KEK first, whose destruction is what counts and is proven by the token."""
    destroy_share(token, vault_id, ceremony)
    token.destroy(approval_name(vault_id, ceremony))


def destroy_share(token: Token, vault_id: bytes, ceremony: bytes) -> None:
    """The share alone. The approval key stays: it identifies the token until the destruction is on record."""
    for name in (share_kek_name, share_name):
        token.destroy(name(vault_id, ceremony))


def leftovers(
    token: Token, vault_id: bytes, known: Collection[bytes], hash_of: Callable[[int], bytes | None]
) -> list[bytes]:
    """Ceremonies that were interrupted, all but those that are ``known``.

    ``hash_of``: this file's hash of the entry with that number. Raises VaultRolledBack for a share of a newer file or
    another history: it may be the one that counts.
    """
    left = [ceremony for ceremony in ceremonies_on(token, vault_id) if ceremony not in known]
    for ceremony in left:
        for value in token.read_objects(share_name(vault_id, ceremony)):
            record = ShareRecord.parse(value)
            if hash_of(record.entry) != record.hash:
                raise VaultRolledBack(
                    t(
                        "token {token} holds a share of ceremony {ceremony}, of which this file knows "
                        "nothing: it is of a newer file, or of another history",
                        token=token.info.label,
                        ceremony=ceremony.hex(),
                    ),
                    "look for the newer file; destroying that share could leave the practice without its emergency key",
                )
    return left
