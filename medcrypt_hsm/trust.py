"""The trust state: the few rows that decide whom the vault trusts, as one frozen value (docs/spec/vault.md).

In: rows of table ``trust``. Out: ``TrustState``, or VaultDamaged. Whether to believe it is unlock.py's question: its
digest is in every head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from medcrypt_hsm.audit import fingerprint
from medcrypt_hsm.context import ctx
from medcrypt_hsm.errors import VaultDamaged
from medcrypt_hsm.period import Month

TrustRow = tuple[str, str, bytes]  # kind, name, value
KINDS = ("vault", "policy", "token", "keyset", "month", "adding")


@dataclass(frozen=True, slots=True)
class Policy:
    grace_days: int = 7
    retain_months: int = 60  # NOM-004-SSA3-2012 section 5.4: clinical records are kept five years
    require_attestation: str = "none"  # or the least grade that a token must have to be registered

    def value(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RegisteredToken:
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


@dataclass(frozen=True, slots=True)
class Adding:
    """A token that is being added, or whose adding was interrupted: nothing is trusted of it."""

    name: str
    uri: str
    serial: str
    begun: str

    def value(self) -> dict[str, str]:
        return {"uri": self.uri, "serial": self.serial, "begun": self.begun}


@dataclass(frozen=True, slots=True)
class TrustState:
    vault_id: bytes
    created: str
    generation: int
    log_key: int
    policy: Policy
    tokens: Mapping[str, RegisteredToken]
    keysets: Mapping[str, tuple[bytes, bytes]]  # "<generation>:<token name>" → token id, wrapped
    months: Mapping[Month, str]  # → when it was opened
    adding: Mapping[str, Adding]
    digest: bytes
    unfinished: str = ""  # of a vault under construction: the URI of its token

    @property
    def newest_month(self) -> Month:
        return max(self.months)


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
        return TrustState(vault_id, "", 0, 0, Policy(), {}, {}, {}, {}, digest(rows), str(vault["unfinished"]))
    policy = kinds["policy"][""]
    tokens = {name: _token(name, value) for name, value in kinds["token"].items()}
    keysets = {
        name: (bytes.fromhex(value["token"]), bytes.fromhex(value["wrapped"]))
        for name, value in kinds["keyset"].items()
    }
    months = {Month.parse(name): str(value["opened"]) for name, value in kinds["month"].items()}
    adding = {
        name: Adding(name, *(str(value[field]) for field in ("uri", "serial", "begun")))
        for name, value in kinds["adding"].items()
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
        keysets,
        months,
        adding,
        digest(rows),
    )


def _token(name: str, value: Any) -> RegisteredToken:
    spki = bytes.fromhex(value["audit_key"])
    if fingerprint(spki).hex() != value["id"]:
        raise ValueError("a token's id is not its audit key's fingerprint")
    uri, label, serial, model, profile, touch, attestation = (
        str(value[field]) for field in ("uri", "label", "serial", "model", "profile", "touch", "attestation")
    )
    kek = bytes.fromhex(value["kek"])
    return RegisteredToken(name, fingerprint(spki), spki, uri, label, serial, model, profile, kek, touch, attestation)
