"""Who can open the practice in an emergency: the break-glass rows of the trust state (docs/spec/breakglass.md).

In: values of rows. Out: frozen values. Whether to believe them is unlock.py's question. Not here: making shares
(sharing.py), and what a request or an approval is (statements.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

CEREMONY_BYTES = 6
MOST = 16  # custodians
ESCROW_BYTES = 1120 + 3 * 32 + 16  # HPKE enc of X-Wing, the three keys, tag
OPEN, DONE = "open", "done"  # phases of a use
PATIENT, PRACTICE = "patient", "practice"  # what it was for


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
        kept = ("attestation", "model", "name", "profile", "serial", "x")
        keys = {name: getattr(self, name).hex() for name in ("approval_key", "commitment", "kek")}
        return {name: getattr(self, name) for name in kept} | keys

    def value(self) -> dict[str, Any]:
        told = self.told()
        del told["name"]
        return told | {"drilled": self.drilled, "label": self.label, "uri": self.uri}


class Escrow(NamedTuple):
    """The newest keyset, sealed to the break-glass key."""

    ceremony: bytes
    generation: int
    sealed: bytes

    def value(self) -> dict[str, Any]:
        return {"ceremony": self.ceremony.hex(), "generation": self.generation, "sealed": self.sealed.hex()}


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
        return {
            "audit_key": self.audit_key.hex(),
            "ceremony": self.ceremony.hex(),
            "entry": self.entry,
            "key": self.key.hex(),
            "since": self.since,
            "threshold": self.threshold,
        }


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
        kept = ("entry", "label", "model", "serial", "since", "uri")
        return {name: getattr(self, name) for name in kept} | {"approval_key": self.approval_key.hex()}


class Use(NamedTuple):
    """Break-glass was used. ``answered``: when a later ceremony made a new key; until then the status is red."""

    request: bytes
    scope: str
    entry: int
    since: str
    phase: str = DONE
    answered: str = ""

    def value(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("answered", "entry", "phase", "scope", "since")}


def rows(
    breakglass: BreakGlass | None, old_shares: tuple[OldShare, ...], uses: tuple[Use, ...]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, name and value of every row."""
    if breakglass is not None:
        yield "breakglass", "", breakglass.value()
        yield "escrow", "", breakglass.escrow.value()
        for name, custodian in breakglass.custodians.items():
            yield "custodian", name, custodian.value()
    for share in old_shares:
        yield "oldshare", share.row, share.value()
    for use in uses:
        yield "use", use.request.hex(), use.value()


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
    threshold = int(value["threshold"])
    if row or escrow_row or not 2 <= threshold <= len(custodians) <= MOST:
        raise ValueError("not one whole break-glass")
    return BreakGlass(
        _ceremony(value["ceremony"]),
        bytes.fromhex(value["key"]),
        threshold,
        bytes.fromhex(value["audit_key"]),
        int(value["entry"]),
        str(value["since"]),
        {name: _custodian(name, custodian) for name, custodian in custodians.items()},
        Escrow(_ceremony(escrow["ceremony"]), int(escrow["generation"]), bytes.fromhex(escrow["sealed"])),
    )


def _ceremony(text: str) -> bytes:
    ceremony = bytes.fromhex(text)
    if len(ceremony) != CEREMONY_BYTES:
        raise ValueError(f"a ceremony id has {CEREMONY_BYTES} bytes")
    return ceremony


def _custodian(name: str, value: Any) -> Custodian:
    approval_key, kek, commitment = (bytes.fromhex(value[key]) for key in ("approval_key", "kek", "commitment"))
    texts = _texts(value, "uri", "label", "serial", "model", "profile", "attestation", "drilled")
    return Custodian(name, approval_key, kek, commitment, int(value["x"]), *texts)


def _old_share(row: str, value: Any) -> OldShare:
    ceremony, _, name = row.partition(":")
    uri, label, serial, model, since = _texts(value, "uri", "label", "serial", "model", "since")
    key, entry = bytes.fromhex(value["approval_key"]), int(value["entry"])
    return OldShare(_ceremony(ceremony), name, key, uri, label, serial, model, entry, since)


def _use(row: str, value: Any) -> Use:
    scope, since, phase, answered = _texts(value, "scope", "since", "phase", "answered")
    request = bytes.fromhex(row)
    if scope not in (PATIENT, PRACTICE) or phase not in (OPEN, DONE) or len(request) != 32:
        raise ValueError("not a use of break-glass")
    return Use(request, scope, int(value["entry"]), since, phase, answered)


def _texts(value: Any, *members: str) -> tuple[str, ...]:
    return tuple(str(value[member]) for member in members)
