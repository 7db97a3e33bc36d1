"""The trust state: the few rows that decide whom the vault trusts, as one frozen value (docs/spec/vault.md).

In: rows of table ``trust``. Out: ``TrustState``, or VaultDamaged. Whether to believe it is unlock.py's question: its
digest is in every head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.errors import VaultDamaged, VaultUnfinished
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import ctx
from medcrypt_hsm.vault.audit import trust_custody
from medcrypt_hsm.vault.audit.trust_custody import BreakGlass, OldShare, Use
from medcrypt_hsm.vault.store.rows import TrustRow

if TYPE_CHECKING:
    from medcrypt_hsm.vault.store.file import VaultFile

KINDS = (
    "vault", "policy", "token", "keyset", "month", "adding", "hold", "rekey", "retired", "doomed",
    "breakglass", "custodian", "escrow", "oldshare", "use",
)  # fmt: skip
INTENDED, COMMITTED = "intended", "committed"  # phases of a re-key
PRESENT, ABSENT = "present", "absent"  # where a token was when it was removed


class Policy(NamedTuple):
    grace_days: int = 7
    retain_months: int = 60  # NOM-004-SSA3-2012 section 5.4: clinical records are kept five years
    require_attestation: str = "none"  # or the least grade that a token must have to be registered

    def value(self) -> dict[str, Any]:
        return self._asdict()


class RegisteredToken(NamedTuple):
    """A token on record. Label, serial, model and the grade are of the day on which it was registered."""

    name: str
    id: bytes
    audit_key: bytes  # SPKI DER
    uri: str
    label: str
    serial: str
    model: str
    profile: str
    kek: bytes  # SPKI DER of a p256-hpke KEK; empty for aes-kw
    touch: str  # what its KEK asks for: never, cached or always
    attestation: str  # grade: not-attested, token-claimed or device-attested

    def value(self) -> dict[str, Any]:
        return {
            "audit_key": self.audit_key.hex(),
            "id": self.id.hex(),
            "uri": self.uri,
            "label": self.label,
            "serial": self.serial,
            "model": self.model,
            "profile": self.profile,
            "kek": self.kek.hex(),
            "touch": self.touch,
            "attestation": self.attestation,
        }


class Adding(NamedTuple):
    """A token that is being added, or whose adding was interrupted: nothing is trusted of it."""

    name: str
    uri: str
    serial: str
    begun: str

    def value(self) -> dict[str, str]:
        return {"uri": self.uri, "serial": self.serial, "begun": self.begun}


class WrappedKeyset(NamedTuple):
    """The newest keyset for one token. ``kek``: the generation of the root KEK that wraps it.

    That is an older one than the keyset's where the token was absent when the vault was re-keyed.
    """

    token_id: bytes
    kek: int
    wrapped: bytes

    def value(self) -> dict[str, Any]:
        return {"kek": self.kek, "token": self.token_id.hex(), "wrapped": self.wrapped.hex()}


class MonthState(NamedTuple):
    opened: str
    shredded: str = ""  # when; a month that was shredded is never derived again

    def value(self) -> dict[str, str]:
        return self._asdict()


class Hold(NamedTuple):
    """Sealed: the file alone tells nobody whom it is about (holds.py)."""

    name: str
    sequence: int
    nonce: bytes
    sealed: bytes

    def value(self) -> dict[str, Any]:
        return {"nonce": self.nonce.hex(), "sealed": self.sealed.hex(), "sequence": self.sequence}


class Rekey(NamedTuple):
    """A re-key, or the syncing of a token, that is under way or was interrupted: the next run ends it.

    Root KEKs of ``generation`` on a token whose keyset they do not wrap are its leftovers. ``entry`` tells what for.
    """

    generation: int
    phase: str
    reason: str
    entry: int
    begun: str

    def value(self) -> dict[str, Any]:
        return self._asdict()


class RetiredToken(NamedTuple):
    """A token that was removed. ``entry`` retired it; ``was`` says whether it was at hand then."""

    name: str
    id: bytes
    audit_key: bytes  # SPKI DER: what it signed before still verifies
    uri: str
    label: str
    serial: str
    model: str
    profile: str
    was: str
    entry: int
    since: str

    def value(self) -> dict[str, Any]:
        kept = ("uri", "label", "serial", "model", "profile", "was", "entry", "since")
        return {name: getattr(self, name) for name in kept} | {"id": self.id.hex(), "audit_key": self.audit_key.hex()}


class OldKek(NamedTuple):
    """An old root KEK that is not proven destroyed: with its token it can open files from before ``since``."""

    kek: int
    token: str
    token_id: bytes
    entry: int  # the re-key that made it an old one
    since: str

    @property
    def row(self) -> str:
        return f"{self.kek}:{self.token}"

    def value(self) -> dict[str, Any]:
        return {"entry": self.entry, "since": self.since, "token": self.token_id.hex()}


@dataclass(frozen=True, slots=True)
class TrustState:
    vault_id: bytes
    created: str
    generation: int
    log_key: int
    policy: Policy
    tokens: Mapping[str, RegisteredToken]
    keysets: Mapping[str, WrappedKeyset]  # by "<generation>:<token name>"
    months: Mapping[Month, MonthState]
    adding: Mapping[str, Adding]
    holds: Mapping[str, Hold]
    rekey: Rekey | None
    retired: Mapping[str, RetiredToken]
    doomed: tuple[OldKek, ...]
    breakglass: BreakGlass | None
    old_shares: tuple[OldShare, ...]
    uses: tuple[Use, ...]
    digest: bytes
    unfinished: str = ""  # of a vault under construction: the URI of its token

    @property
    def newest_month(self) -> Month:
        return max(self.months)

    def is_shredded(self, month: Month) -> bool:
        return month in self.months and bool(self.months[month].shredded)

    def keyset_of(self, name: str) -> WrappedKeyset | None:
        """The newest keyset as the token called ``name`` has it; None if it was left out of a re-key."""
        return self.keysets.get(f"{self.generation}:{name}")

    def lags(self, name: str) -> bool:
        """Was the token called ``name`` absent when the vault was re-keyed, and not synced since?"""
        keyset = self.keyset_of(name)
        return keyset is None or keyset.kek != self.generation

    def is_compromised(self, entry: int, added: str) -> bool:
        """Could a pairing that this audit entry made, at this time, be followed by somebody else?

        By whoever has a token that was removed unseen: one that was absent, or whose root KEK is not proven destroyed.
        And by the machine on which break-glass was used before a new ceremony: it held the key to every copy.
        """
        alive = {doomed.token_id for doomed in self.doomed}
        return any(entry < t.entry and (t.was == ABSENT or t.id in alive) for t in self.retired.values()) or any(
            not use.answered or entry < use.entry or added <= use.answered for use in self.uses
        )

    @property
    def token_names(self) -> dict[bytes, str]:
        """Token id → short name, of every token that is or was registered."""
        names = {token.id: token.name for token in self.retired.values()}
        return names | {token.id: token.name for token in self.tokens.values()}

    @property
    def audit_keys(self) -> dict[bytes, bytes]:
        """Token id → audit key, of every token that is or was registered."""
        keys = {token.id: token.audit_key for token in self.retired.values()}
        return keys | {token.id: token.audit_key for token in self.tokens.values()}


def digest(rows: Sequence[TrustRow]) -> bytes:
    """What heads sign; ``rows`` in ascending order of (kind, name)."""
    return sha256(ctx("medcrypt/trust", *(part for row in rows for part in row))).digest()


def parse(rows: Sequence[TrustRow]) -> TrustState:
    """Raises VaultDamaged for rows that no version of the program writes."""
    try:
        return _parse(rows)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise VaultDamaged("the vault's trust state cannot be read") from exc


def _parse(rows: Sequence[TrustRow]) -> TrustState:
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind, name, value in rows:
        kinds[kind][name] = json.loads(value)
    vault = kinds["vault"][""]
    vault_id = bytes.fromhex(vault["id"])
    if len(vault_id) != 16:
        raise ValueError("a vault id has 16 bytes")
    if "unfinished" in vault:
        unfinished = str(vault["unfinished"])
        return TrustState(
            vault_id,
            "",
            0,
            0,
            Policy(),
            {},
            {},
            {},
            {},
            {},
            None,
            {},
            (),
            None,
            (),
            (),
            digest(rows),
            unfinished=unfinished,
        )
    policy = kinds["policy"][""]
    tokens = {name: _token(name, value) for name, value in kinds["token"].items()}
    months = {
        Month.parse(name): MonthState(str(value["opened"]), str(value["shredded"]))
        for name, value in kinds["month"].items()
    }
    if not months or not tokens:
        raise ValueError("no month or no token")
    return TrustState(
        vault_id,
        str(vault["created"]),
        int(vault["generation"]),
        int(vault["log_key"]),
        Policy(int(policy["grace_days"]), int(policy["retain_months"]), str(policy["require_attestation"])),
        tokens,
        {name: _keyset(value) for name, value in kinds["keyset"].items()},
        months,
        {name: Adding(name, *_texts(value, "uri", "serial", "begun")) for name, value in kinds["adding"].items()},
        {name: _hold(name, value) for name, value in kinds["hold"].items()},
        _rekey(kinds["rekey"]),
        {name: _retired(name, value) for name, value in kinds["retired"].items()},
        tuple(_doomed(name, value) for name, value in kinds["doomed"].items()),
        *trust_custody.parse(kinds),
        digest(rows),
    )


def _texts(value: Any, *fields: str) -> tuple[str, ...]:
    return tuple(str(value[field]) for field in fields)


def _token(name: str, value: Any) -> RegisteredToken:
    spki = _audit_key(value)
    uri, label, serial, model, profile = _texts(value, "uri", "label", "serial", "model", "profile")
    kek = bytes.fromhex(value["kek"])
    touch, attestation = _texts(value, "touch", "attestation")
    return RegisteredToken(name, fingerprint(spki), spki, uri, label, serial, model, profile, kek, touch, attestation)


def _audit_key(value: Any) -> bytes:
    spki = bytes.fromhex(value["audit_key"])
    if fingerprint(spki).hex() != value["id"]:
        raise ValueError("a token's id is not its audit key's fingerprint")
    return spki


def _keyset(value: Any) -> WrappedKeyset:
    return WrappedKeyset(bytes.fromhex(value["token"]), int(value["kek"]), bytes.fromhex(value["wrapped"]))


def _hold(name: str, value: Any) -> Hold:
    return Hold(name, int(value["sequence"]), bytes.fromhex(value["nonce"]), bytes.fromhex(value["sealed"]))


def _rekey(rows: dict[str, Any]) -> Rekey | None:
    if not rows:
        return None
    ((name, value),) = rows.items()
    phase, reason, begun = _texts(value, "phase", "reason", "begun")
    if name or phase not in (INTENDED, COMMITTED):
        raise ValueError("not a re-key")
    return Rekey(int(value["generation"]), phase, reason, int(value["entry"]), begun)


def _retired(name: str, value: Any) -> RetiredToken:
    spki = _audit_key(value)
    uri, label, serial, model, profile, was = _texts(value, "uri", "label", "serial", "model", "profile", "was")
    if was not in (PRESENT, ABSENT):
        raise ValueError("a removed token was present or absent")
    entry, since = int(value["entry"]), str(value["since"])
    return RetiredToken(name, fingerprint(spki), spki, uri, label, serial, model, profile, was, entry, since)


def _doomed(name: str, value: Any) -> OldKek:
    number, _, token = name.partition(":")
    if str(int(number)) != number:
        raise ValueError("not a generation")
    return OldKek(int(number), token, bytes.fromhex(value["token"]), int(value["entry"]), str(value["since"]))


def finished_state(file: VaultFile) -> TrustState:
    """The trust state as the file has it, not verified. Raises VaultUnfinished. Call inside a snapshot."""
    state = parse(file.trust_rows())
    if state.unfinished:
        raise VaultUnfinished(f"making the vault {file.path} was interrupted")
    return state
