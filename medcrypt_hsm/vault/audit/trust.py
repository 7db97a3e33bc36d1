"""The trust state: the few rows that decide whom the vault trusts, as one frozen value (docs/spec/vault.md).

In: rows of table ``trust``. Out: ``TrustState``, or VaultDamaged; and whether each row is of the spec's form to the
byte. What each kind of row holds stands in one table, ``FIELDS``. Not here: whether to believe the rows, whose digest
is in every head (vault/unlock.py, verify.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.errors import VaultDamaged, VaultUnfinished
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import canonical, ctx
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit import trust_custody
from medcrypt_hsm.vault.audit.fields import (
    NUMBER,
    OCTETS,
    TEXT,
    TIME,
    TIME_OR_EMPTY,
    Fields,
    exact_octets,
    number,
    one_of,
    sized_octets,
)
from medcrypt_hsm.vault.audit.trust_custody import BreakGlass, OldShare, Use
from medcrypt_hsm.vault.store.rows import TrustRow

if TYPE_CHECKING:
    from medcrypt_hsm.vault.store.store import Store

INTENDED, COMMITTED = "intended", "committed"  # phases of a re-key
PRESENT, ABSENT = "present", "absent"  # where a token was when it was removed


def _check_log_key(value: int) -> None:
    if number(value) < 1:
        raise ValueError("log keys are numbered from 1 on")


def _check_nonce(value: bytes) -> None:
    if len(value) != 12:
        raise ValueError("not a nonce of AES-GCM")


def _check_sealed(value: bytes) -> None:
    if len(value) < 16:
        raise ValueError("shorter than a tag of AES-GCM")


def _check_mac(value: bytes) -> None:
    if value and len(value) != 32:
        raise ValueError("not a MAC")


FIELDS: dict[str, Fields] = {
    "vault": Fields(
        created=TIME,
        generation=NUMBER,
        id=sized_octets(16).called("vault_id"),
        log_key=NUMBER._replace(check=_check_log_key),
    ),
    "policy": Fields(
        grace_days=NUMBER.left_out_at(7),
        retain_months=NUMBER.left_out_at(60),
        require_attestation=TEXT.left_out_at("none"),
    ),
    "token": Fields(
        audit_key=OCTETS,
        id=exact_octets(32),
        uri=TEXT,
        label=TEXT,
        serial=TEXT,
        model=TEXT,
        profile=TEXT,
        kek=OCTETS,
        touch=TEXT,
        attestation=TEXT,
    ),
    "keyset": Fields(
        check=OCTETS._replace(check=_check_mac).left_out_at(""),
        kek=NUMBER,
        token=OCTETS.called("token_id"),
        wrapped=OCTETS,
    ),
    "month": Fields(opened=TIME, shredded=TIME_OR_EMPTY),
    "adding": Fields(uri=TEXT, serial=TEXT, begun=TIME),
    "hold": Fields(
        nonce=OCTETS._replace(check=_check_nonce),
        sealed=OCTETS._replace(check=_check_sealed),
        sequence=NUMBER,
    ),
    "rekey": Fields(generation=NUMBER, phase=one_of(INTENDED, COMMITTED), reason=TEXT, entry=NUMBER, begun=TIME),
    "retired": Fields(
        id=exact_octets(32),
        audit_key=OCTETS,
        uri=TEXT,
        label=TEXT,
        serial=TEXT,
        model=TEXT,
        profile=TEXT,
        was=one_of(PRESENT, ABSENT),
        entry=NUMBER,
        since=TIME,
    ),
    "rows": Fields(root=exact_octets(32)),
    "doomed": Fields(entry=NUMBER, since=TIME, token=OCTETS.called("token_id")),
    **trust_custody.FIELDS,
}
_HOLD = re.compile("[0-9a-f]{16}", re.ASCII)


class Policy(NamedTuple):
    grace_days: int = 7
    retain_months: int = 60  # NOM-004-SSA3-2012 section 5.4: clinical records are kept five years
    require_attestation: str = "none"  # or the least grade that a token must have to be registered

    def value(self) -> dict[str, Any]:
        return FIELDS["policy"].value(self)

    def whole(self) -> dict[str, Any]:
        """With what is at its default, which the row leaves out."""
        return FIELDS["policy"].whole(self)


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
        return FIELDS["token"].value(self)


class Adding(NamedTuple):
    """A token that is being added, or whose adding was interrupted: nothing is trusted of it."""

    name: str
    uri: str
    serial: str
    begun: str

    def value(self) -> dict[str, Any]:
        return FIELDS["adding"].value(self)


class WrappedKeyset(NamedTuple):
    """The newest keyset for one token. ``kek``: the generation of the root KEK that wraps it.

    That is an older one than the keyset's where the token was absent when the vault was re-keyed.
    """

    token_id: bytes
    kek: int
    wrapped: bytes
    check: bytes = b""  # of aes-kw, which binds nothing itself; empty in rows of before, too

    def value(self) -> dict[str, Any]:
        return FIELDS["keyset"].value(self)


class MonthState(NamedTuple):
    opened: str
    shredded: str = ""  # when; a month that was shredded is never derived again

    def value(self) -> dict[str, Any]:
        return FIELDS["month"].value(self)


class Root(NamedTuple):
    """What the head binds of the rows of one group (rowtree.py)."""

    name: str
    root: bytes

    def value(self) -> dict[str, Any]:
        return FIELDS["rows"].value(self)


class Hold(NamedTuple):
    """Sealed: the file alone tells nobody whom it is about (lifecycle/holds.py)."""

    name: str
    sequence: int
    nonce: bytes
    sealed: bytes

    def value(self) -> dict[str, Any]:
        return FIELDS["hold"].value(self)


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
        return FIELDS["rekey"].value(self)


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
        return FIELDS["retired"].value(self)


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
        return FIELDS["doomed"].value(self)


class TrustState(NamedTuple):
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
    roots: Mapping[str, bytes]  # by group; a vault of before has none: its rows are not bound
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
        alive = {old.token_id for old in self.doomed}
        return any(
            entry < token.entry and (token.was == ABSENT or token.id in alive) for token in self.retired.values()
        ) or any(not use.answered or entry < use.entry or added <= use.answered for use in self.uses)

    def rows(self) -> Iterator[tuple[str, str, object]]:
        """Kind, name and value of every row: what its table in ``FIELDS`` reads and writes."""
        yield "vault", "", self
        yield "policy", "", self.policy
        yield from (("token", name, token) for name, token in self.tokens.items())
        yield from (("keyset", name, keyset) for name, keyset in self.keysets.items())
        yield from (("month", str(month), known) for month, known in self.months.items())
        yield from (("adding", name, begun) for name, begun in self.adding.items())
        yield from (("hold", name, hold) for name, hold in self.holds.items())
        if self.rekey is not None:
            yield "rekey", "", self.rekey
        yield from (("retired", name, token) for name, token in self.retired.items())
        yield from (("doomed", old.row, old) for old in self.doomed)
        yield from (("rows", name, Root(name, root)) for name, root in self.roots.items())
        yield from trust_custody.rows(self.breakglass, self.old_shares, self.uses)

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


def finished_state(file: Store) -> TrustState:
    """The trust state as the file has it, not verified. Raises VaultUnfinished. Call inside a snapshot."""
    state = parse(file.trust_rows())
    if state.unfinished:
        raise VaultUnfinished(t("making the vault {vault} was interrupted", vault=file.location))
    if bool(state.roots) != file.has_tree:
        raise VaultDamaged("the vault's schema and its trust state do not agree on whether its rows are bound")
    return state


def parse(rows: Sequence[TrustRow]) -> TrustState:
    """Raises VaultDamaged for rows that no version of the program writes."""
    try:
        return _parse(rows)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise VaultDamaged("the vault's trust state cannot be read") from exc


def _parse(rows: Sequence[TrustRow]) -> TrustState:
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in FIELDS}
    for kind, name, value in rows:
        kinds[kind][name] = json.loads(value)
    vault = kinds["vault"][""]
    if "unfinished" in vault:
        return _unfinished(vault, digest(rows))
    if not kinds["month"] or not kinds["token"]:
        raise ValueError("no month or no token")
    breakglass, old_shares, uses = trust_custody.parse(kinds)
    return TrustState(
        **FIELDS["vault"].read(vault),
        policy=Policy(**FIELDS["policy"].read(kinds["policy"][""])),
        tokens={name: _token(name, value) for name, value in kinds["token"].items()},
        keysets={name: WrappedKeyset(**FIELDS["keyset"].read(value)) for name, value in kinds["keyset"].items()},
        months={Month.parse(name): MonthState(**FIELDS["month"].read(value)) for name, value in kinds["month"].items()},
        adding={name: Adding(name, **FIELDS["adding"].read(value)) for name, value in kinds["adding"].items()},
        holds={name: Hold(name, **FIELDS["hold"].read(value)) for name, value in kinds["hold"].items()},
        rekey=_rekey(kinds["rekey"]),
        retired={name: _retired(name, value) for name, value in kinds["retired"].items()},
        doomed=tuple(_old_kek(name, value) for name, value in kinds["doomed"].items()),
        breakglass=breakglass,
        old_shares=old_shares,
        uses=uses,
        digest=digest(rows),
        roots={name: FIELDS["rows"].read(value)["root"] for name, value in kinds["rows"].items()},
    )


def _unfinished(vault: Mapping[str, Any], found: bytes) -> TrustState:
    """Of a vault under construction, which trusts nobody yet."""
    return TrustState(
        vault_id=FIELDS["vault"].codecs["id"].read(vault["id"]),
        created="",
        generation=0,
        log_key=0,
        policy=Policy(),
        tokens={},
        keysets={},
        months={},
        adding={},
        holds={},
        rekey=None,
        retired={},
        doomed=(),
        breakglass=None,
        old_shares=(),
        uses=(),
        digest=found,
        roots={},
        unfinished=str(vault["unfinished"]),
    )


def _token(name: str, value: Any) -> RegisteredToken:
    token = RegisteredToken(name, **FIELDS["token"].read(value))
    _check_id(token)
    return token


def _retired(name: str, value: Any) -> RetiredToken:
    token = RetiredToken(name, **FIELDS["retired"].read(value))
    _check_id(token)
    return token


def _check_id(token: RegisteredToken | RetiredToken) -> None:
    if fingerprint(token.audit_key) != token.id:
        raise ValueError("a token's id is not its audit key's fingerprint")


def _rekey(rows: dict[str, Any]) -> Rekey | None:
    if not rows:
        return None
    ((name, value),) = rows.items()
    if name:
        raise ValueError("not a re-key")
    return Rekey(**FIELDS["rekey"].read(value))


def _old_kek(name: str, value: Any) -> OldKek:
    kek, _, token = name.partition(":")
    if str(int(kek)) != kek:
        raise ValueError("not a generation")
    return OldKek(int(kek), token, **FIELDS["doomed"].read(value))


def check_form(rows: Sequence[TrustRow], state: TrustState) -> None:
    """Each row is what the spec has for its kind, to the byte: another reader must not see another thing in it.

    What was parsed, written again, must be what was read. Raises ValueError.
    """
    written = {}
    for kind, name, told in state.rows():
        FIELDS[kind].check(told)
        written[kind, name] = canonical(FIELDS[kind].value(told))
        if kind == "policy":
            row = next(value for there, name, value in rows if (there, name) == ("policy", ""))
            written["policy", ""] = _as_it_stands(state.policy, row)
    for name in state.holds:
        if _HOLD.fullmatch(name) is None:
            raise ValueError("not a hold")
    for old in state.doomed:
        number(old.kek)
    if [(kind, name, written.get((kind, name))) for kind, name, _ in rows] != list(rows):
        raise ValueError("not canonical")


def _as_it_stands(policy: Policy, row: bytes) -> bytes:
    """The policy with those of its members that the row has: one of before has them all. Raises ValueError."""
    whole = policy.whole()
    return canonical({member: whole[member] for member in whole if member in json.loads(row)} | policy.value())
