"""Who can open the practice in an emergency: the break-glass rows of the trust state (docs/spec/breakglass.md).

In: values of rows. Out: frozen values. What each kind of row holds stands in one table, ``FIELDS``. Not here: whether
to believe the rows (vault/unlock.py, verify.py), how shares are made (lifecycle/shares.py), and what a request or an
approval is (statements.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from medcrypt_hsm.vault.audit.fields import (
    NUMBER,
    OCTETS,
    TEXT,
    TIME,
    TIME_OR_EMPTY,
    Fields,
    one_of,
    sized_octets,
)

CEREMONY_BYTES = 6
MOST = 16  # custodians
ESCROW_BYTES = 1120 + 3 * 32 + 16  # HPKE enc of X-Wing, the three keys, tag
OPEN, DONE = "open", "done"  # phases of a use
PATIENT, PRACTICE = "patient", "practice"  # what it was for
GUEST = "bg-"  # what the names of guests, and of no others, begin with

_CEREMONY = sized_octets(CEREMONY_BYTES)
FIELDS: dict[str, Fields] = {
    "breakglass": Fields(audit_key=OCTETS, ceremony=_CEREMONY, entry=NUMBER, key=OCTETS, since=TIME, threshold=NUMBER),
    "custodian": Fields(
        approval_key=OCTETS,
        attestation=TEXT,
        commitment=OCTETS,
        drilled=TIME_OR_EMPTY,
        kek=OCTETS,
        label=TEXT,
        model=TEXT,
        profile=TEXT,
        serial=TEXT,
        uri=TEXT,
        x=NUMBER,
    ),
    "escrow": Fields(ceremony=_CEREMONY, generation=NUMBER, sealed=OCTETS),
    "oldshare": Fields(approval_key=OCTETS, entry=NUMBER, label=TEXT, model=TEXT, serial=TEXT, since=TIME, uri=TEXT),
    "use": Fields(
        answered=TIME_OR_EMPTY, entry=NUMBER, phase=one_of(OPEN, DONE), scope=one_of(PATIENT, PRACTICE), since=TIME
    ),
}
CUSTODIAN_TOLD = ("approval_key", "attestation", "commitment", "kek", "model", "name", "profile", "serial", "x")
"""What the entry that ends a ceremony tells of each custodian."""


class Custodian(NamedTuple):
    """Who holds a share, as the present ceremony made it. ``x``: which share, from 1 on."""

    name: str
    approval_key: bytes  # SPKI DER
    kek: bytes  # SPKI DER of a p256-hpke KEK; empty for aes-kw
    commitment: bytes
    x: int
    uri: str
    label: str
    serial: str
    model: str
    profile: str
    attestation: str
    drilled: str = ""  # when the share was last proven to be there

    def told(self) -> dict[str, Any]:
        """As the entry that ends the ceremony tells of it."""
        members = self.value() | {"name": self.name}
        return {member: members[member] for member in CUSTODIAN_TOLD}

    def value(self) -> dict[str, Any]:
        return FIELDS["custodian"].value(self)


class Escrow(NamedTuple):
    """The newest keyset, sealed to the break-glass key."""

    ceremony: bytes
    generation: int
    sealed: bytes

    def value(self) -> dict[str, Any]:
        return FIELDS["escrow"].value(self)


class BreakGlass(NamedTuple):
    """The present ceremony. ``audit_key``: fingerprint of that of the token that it was held with."""

    ceremony: bytes
    key: bytes  # X-Wing public key
    threshold: int
    audit_key: bytes
    entry: int
    since: str
    custodians: Mapping[str, Custodian]
    escrow: Escrow

    def in_order(self) -> list[Custodian]:
        """The custodians, by the numbers of their shares."""
        return sorted(self.custodians.values(), key=lambda custodian: custodian.x)

    def value(self) -> dict[str, Any]:
        return FIELDS["breakglass"].value(self)


class OldShare(NamedTuple):
    """A share of an earlier ceremony that is not proven destroyed: enough of them open copies from that time."""

    ceremony: bytes
    name: str
    approval_key: bytes
    uri: str
    label: str
    serial: str
    model: str
    entry: int  # the re-key that made it an old one
    since: str

    @property
    def row(self) -> str:
        return f"{self.ceremony.hex()}:{self.name}"

    def value(self) -> dict[str, Any]:
        return FIELDS["oldshare"].value(self)


class Use(NamedTuple):
    """Break-glass was used. ``answered``: when a later ceremony made a new key; until then the status is red."""

    request: bytes
    scope: str
    entry: int
    since: str
    phase: str = DONE
    answered: str = ""

    def value(self) -> dict[str, Any]:
        return FIELDS["use"].value(self)


def rows(
    breakglass: BreakGlass | None, old_shares: tuple[OldShare, ...], uses: tuple[Use, ...]
) -> Iterator[tuple[str, str, object]]:
    """Kind, name and value of every row: what its table in ``FIELDS`` reads and writes."""
    if breakglass is not None:
        yield "breakglass", "", breakglass
        yield "escrow", "", breakglass.escrow
        yield from (("custodian", name, custodian) for name, custodian in breakglass.custodians.items())
    yield from (("oldshare", share.row, share) for share in old_shares)
    yield from (("use", use.request.hex(), use) for use in uses)


def parse(kinds: Mapping[str, Mapping[str, Any]]) -> tuple[BreakGlass | None, tuple[OldShare, ...], tuple[Use, ...]]:
    """From values by kind and name. Raises ValueError, KeyError, TypeError."""
    return (
        _breakglass(kinds),
        tuple(_old_share(row, value) for row, value in kinds["oldshare"].items()),
        tuple(_use(row, value) for row, value in kinds["use"].items()),
    )


def _breakglass(kinds: Mapping[str, Mapping[str, Any]]) -> BreakGlass | None:
    found, escrowed, custodians = kinds["breakglass"], kinds["escrow"], kinds["custodian"]
    if not found and not escrowed and not custodians:
        return None
    ((row, value),), ((escrow_row, escrow),) = found.items(), escrowed.items()
    breakglass = BreakGlass(
        **FIELDS["breakglass"].read(value),
        custodians={name: Custodian(name, **FIELDS["custodian"].read(one)) for name, one in custodians.items()},
        escrow=Escrow(**FIELDS["escrow"].read(escrow)),
    )
    if row or escrow_row or not 2 <= breakglass.threshold <= len(custodians) <= MOST:
        raise ValueError("not one whole break-glass")
    return breakglass


def _old_share(row: str, value: Any) -> OldShare:
    ceremony, _, name = row.partition(":")
    return OldShare(_CEREMONY.read(ceremony), name, **FIELDS["oldshare"].read(value))


def _use(row: str, value: Any) -> Use:
    return Use(sized_octets(32).read(row), **FIELDS["use"].read(value))
