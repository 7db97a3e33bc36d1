"""Reading and verifying the whole log: ``show``, ``verify`` with the token, ``verify`` with public keys alone.

In: a vault file, and an unlocked vault or public keys. Verification is quiet when all is well and otherwise raises
with the entry or row that is wrong. ``scripts/verify_audit.py`` does the second kind without this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medcrypt_hsm import audit
from medcrypt_hsm.audit import INTRODUCE, REKEY, Entry
from medcrypt_hsm.errors import AuditBroken, UsageError, VaultDamaged
from medcrypt_hsm.hashchain import REASONS, SYNCING, Chain, check_token, introduction
from medcrypt_hsm.keys import RecordRow, SealedRow, canonical
from medcrypt_hsm.trust import TrustRow, TrustState
from medcrypt_hsm.unlocked import Unlocked, finished_state
from medcrypt_hsm.vault import VaultFile

_SEEN_ACTIONS = ("message.encrypt", "message.decrypt")
_DID_WRITE = ("done", "intended")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification covered. ``rows`` is None without a token: then only integrity was verified."""

    entries: int
    sequence: int
    hash: bytes
    keys: tuple[str, ...]  # names of the tokens whose audit keys are valid at the end
    rows: int | None = None


def numbered(unlocked: Unlocked) -> Iterator[tuple[int, Entry]]:
    for row in unlocked.file.entries():
        yield row.sequence, unlocked.read_entry(row)


def show(unlocked: Unlocked) -> list[tuple[int, Entry]]:
    """Every entry, opened, oldest first; reading them is recorded."""
    unlocked.record("audit.show")
    with unlocked.file.snapshot():
        return list(numbered(unlocked))


def verify_with_public_keys(file: VaultFile, public_keys: Sequence[bytes]) -> Verified:
    """Chain, every head and the trust state, from DER public keys alone (docs/spec/audit.md).

    Raises AuditBroken, VaultDamaged, or UsageError for a key that the log never saw.
    """
    with file.snapshot():
        file.check_integrity()
        chain = _verify_chain(file, finished_state(file))
        # All that can be said of these rows without the token; yet a carelessly cut tail shows here.
        rows: list[RecordRow | SealedRow] = [*file.records(), *file.all_sealed()]
        for row in rows:
            if not 1 <= row.sequence <= chain.sequence:
                raise AuditBroken(f"row {row.ref} is of audit entry {row.sequence}, which the log does not have")
        _check_gone(file, chain)
    given = {audit.fingerprint(spki) for spki in public_keys}
    if unknown := given - set(chain.introduced):
        raise AuditBroken(
            f"the log never introduced the given key {min(unknown).hex()[:16]}…: it is another vault's log, or forged",
            "compare the key's fingerprint with the officer's record",
        )
    first = next(iter(chain.introduced))
    if first not in given and chain.signer not in given:
        raise AuditBroken(
            "no given key vouches for this log: neither its first key nor the one that signed its newest head",
            "add the practice's first audit key, or its present one, with --public-key",
        )
    return _verified(chain)


def _check_gone(file: VaultFile, chain: Chain) -> None:
    """Nothing is left of a month that was shredded, nor of a pairing that was erased: which rows of those there are
    needs no token to see. Raises AuditBroken."""
    of_months = {(row.pairing, row.month) for row in file.records()}
    of_months |= {(pairing, month) for pairing, month, _, _ in file.all_seen()}
    for pairing, month in [*of_months, *((row.pairing, "") for row in file.all_sealed())]:
        rekeyed = chain.shredded.get(month) or chain.erased.get(pairing.hex())
        if rekeyed is not None:
            gone = month if month in chain.shredded else f"pairing {pairing.hex()}"
            raise AuditBroken(f"there are rows of {gone}, of which there may be none any more", at=rekeyed.entry)


def verify(unlocked: Unlocked) -> Verified:
    """Everything: chain and heads from the first entry, each entry opened, each stored row against the log.

    Raises AuditBroken naming the entry or row.
    """
    with unlocked.file.snapshot():
        chain = _verify_chain(unlocked.file, finished_state(unlocked.file))
        return _verified(chain, _compare_rows(unlocked))


def verify_rows(unlocked: Unlocked) -> int:
    """Of a file whose chain was verified: each entry opened, each stored row against the log; how many rows."""
    with unlocked.file.snapshot():
        return _compare_rows(unlocked)


def _compare_rows(unlocked: Unlocked) -> int:
    unlocked.file.check_integrity()
    ledger = _Ledger()
    names = finished_state(unlocked.file).token_names
    for row in unlocked.file.entries():
        entry = unlocked.read_entry(row)
        check_token(row, entry, names)
        ledger.take(row.sequence, entry)
    return ledger.compare(unlocked)


def _verified(chain: Chain, rows: int | None = None) -> Verified:
    names = tuple(sorted(chain.introduced[key].name for key in chain.keys))
    return Verified(chain.sequence, chain.sequence, chain.hash, names, rows)


def _verify_chain(file: VaultFile, state: TrustState) -> Chain:
    chain = Chain(state.vault_id, 0, audit.genesis(state.vault_id), {})
    for row in file.entries():
        entry = chain.extend(row, check_head=True)
        if row.sequence == 1 and (entry is None or entry.action != INTRODUCE):
            raise AuditBroken("the log does not begin by introducing an audit key", at=1)
    if chain.sequence == 0:
        raise AuditBroken("the audit log is empty", at=1)
    if chain.trust != state.digest:
        raise AuditBroken("the trust state is not the one that the newest head signed", at=chain.sequence)
    if chain.log_key > state.log_key:
        raise AuditBroken(f"an entry is sealed under log key {chain.log_key}; the newest is {state.log_key}")
    _check_form(file.trust_rows(), state, chain.sequence)
    _check_tokens(state, chain)
    return chain


def _check_form(rows: Sequence[TrustRow], state: TrustState, at: int) -> None:
    """Each trust row is what the spec has for its kind, to the byte: another reader must not see another thing in it.

    What was parsed, written again, must be what was read.
    """
    numbers = [state.generation, state.log_key, state.policy.grace_days, state.policy.retain_months]
    numbers += [keyset.kek for keyset in state.keysets.values()]
    numbers += [n for doomed in state.doomed for n in (doomed.kek, doomed.entry)]
    numbers += [token.entry for token in state.retired.values()]
    numbers += [hold.sequence for hold in state.holds.values()]
    times = [state.created, *(month.opened for month in state.months.values())]
    times += [month.shredded for month in state.months.values() if month.shredded]
    times += [begun.begun for begun in state.adding.values()] + [doomed.since for doomed in state.doomed]
    times += [token.since for token in state.retired.values()]
    vault = {"created": state.created, "generation": state.generation, "log_key": state.log_key}
    values: dict[tuple[str, str], Mapping[str, Any]] = {
        ("vault", ""): vault | {"id": state.vault_id.hex()},
        ("policy", ""): state.policy.value(),
    }
    values |= {("token", name): token.value() for name, token in state.tokens.items()}
    values |= {("month", str(month)): known.value() for month, known in state.months.items()}
    values |= {("adding", name): begun.value() for name, begun in state.adding.items()}
    values |= {("keyset", name): keyset.value() for name, keyset in state.keysets.items()}
    values |= {("hold", name): hold.value() for name, hold in state.holds.items()}
    values |= {("retired", name): token.value() for name, token in state.retired.items()}
    values |= {("doomed", doomed.row): doomed.value() for doomed in state.doomed}
    if state.rekey is not None:
        if state.rekey.reason not in (*REASONS, SYNCING):
            raise AuditBroken("the vault is being re-keyed for no known reason", at=at)
        values["rekey", ""] = state.rekey.value()
        numbers += [state.rekey.generation, state.rekey.entry]
        times += [state.rekey.begun]
    try:
        for time in times:
            audit.check_time(time)
        for name, hold in state.holds.items():
            if re.fullmatch("[0-9a-f]{16}", name) is None or len(hold.nonce) != 12 or len(hold.sealed) < 16:
                raise ValueError("not a hold")
        if [(kind, name, canonical(values.get((kind, name)))) for kind, name, _ in rows] != list(rows):
            raise ValueError("not canonical")
        if not all(0 <= number < 1 << 63 for number in numbers) or state.log_key < 1:
            raise ValueError("a number is out of range")
    except ValueError as exc:
        raise AuditBroken("a row of the trust state is not as the spec has it", at=at) from exc


def _check_tokens(state: TrustState, chain: Chain) -> None:
    """On record are the tokens, root keys and shredded months that the log tells of, and no keyset is for anybody else.

    Raises AuditBroken.
    """
    at = chain.sequence
    valid = {known.name: known for known in chain.introduced.values() if known.id in chain.keys}
    if set(state.tokens) != set(valid):
        raise AuditBroken("the tokens on record are not those that the log introduced", at=at)
    for name, token in state.tokens.items():
        if introduction(token.value(), name) != valid[name].told:
            raise AuditBroken(f"token {name} is on record otherwise than the log introduced it", at=at)
    retired = {known.name: known for known in chain.introduced.values() if known.id in chain.retired}
    by = {name: chain.retired[known.id] for name, known in retired.items()}
    if {name: (t.id, t.entry, t.since) for name, t in state.retired.items()} != {
        name: (known.id, by[name].entry, by[name].time) for name, known in retired.items()
    }:
        raise AuditBroken("the removed tokens on record are not those that the log retired", at=at)
    for name, gone in state.retired.items():
        told = {member: retired[name].told[member] for member in ("model", "profile", "serial")}
        if told != {"model": gone.model, "profile": gone.profile, "serial": gone.serial}:
            raise AuditBroken(f"removed token {name} is on record otherwise than the log introduced it", at=at)
    if (state.generation, state.log_key) != (chain.generation, chain.newest_log_key):
        raise AuditBroken("the keyset on record is not the newest that the log tells of", at=at)
    if {str(month): known.shredded for month, known in state.months.items() if known.shredded} != {
        month: rekeyed.time for month, rekeyed in chain.shredded.items()
    }:
        raise AuditBroken("the shredded months on record are not those that the log tells of", at=at)
    for row, keyset in state.keysets.items():
        generation, _, name = row.partition(":")
        if name not in valid or valid[name].id != keyset.token_id or not keyset.wrapped:
            raise AuditBroken(f"the keyset {row} is wrapped for no token of that name", at=at)
        if generation != str(state.generation) or keyset.kek != valid[name].kek:
            raise AuditBroken(f"the keyset {row} is not under the newest root key of that token", at=at)
    for doomed in state.doomed:
        known = (valid | retired).get(doomed.token)
        if known is None or known.id != doomed.token_id:
            raise AuditBroken(f"the old root key {doomed.row} is of no token of that name", at=at)
        rekeyed = chain.rekeys.get(doomed.entry)
        if rekeyed is None or rekeyed.time != doomed.since or not 1 <= doomed.kek < rekeyed.generation:
            raise AuditBroken(f"the old root key {doomed.row} is of no re-key that made it one", at=at)
    for name, hold in state.holds.items():
        if not 1 <= hold.sequence <= at:
            raise AuditBroken(f"hold {name} is of audit entry {hold.sequence}, which the log does not have", at=at)


class _Ledger:
    """What the log says must be in the file: each row's newest writer, and every seen text."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._seen: dict[tuple[str, str, str], str] = {}
        self._newest_time = ""

    def take(self, sequence: int, entry: Entry) -> None:
        try:
            if entry.time < self._newest_time:
                raise AuditBroken(f"audit entry {sequence} is older than the one before it", at=sequence)
            self._newest_time = entry.time
            for ref in entry.detail.get("deletes", ()):
                self._rows.pop(ref, None)
            for ref in entry.detail.get("writes", ()):
                self._rows[ref] = sequence
            if entry.action == REKEY and entry.outcome == "done":
                self._forget_seen(set(entry.detail["shredded"]), set(entry.detail["erased"]))
            if entry.action in _SEEN_ACTIONS and entry.outcome in _DID_WRITE:  # a refusal lists no rows: it wrote none
                self._take_messages(entry.detail["messages"])
            elif entry.action == "message.failed":
                self._drop_messages(entry.detail["messages"])
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise AuditBroken(f"audit entry {sequence} tells of its rows in no known way", at=sequence) from exc

    def _forget_seen(self, months: set[str], pairings: set[str]) -> None:
        self._seen = {key: row for key, row in self._seen.items() if key[0] not in pairings and key[1] not in months}

    def _take_messages(self, groups: Iterable[dict[str, object]]) -> None:
        for pairing, month, row in _seen_rows(groups):
            if not row.endswith(" conflict"):
                self._seen[pairing, month, row[:32]] = row[32:64]

    def _drop_messages(self, groups: Iterable[dict[str, object]]) -> None:
        for pairing, month, row in _seen_rows(groups):
            if len(row) == 64 and self._seen.get((pairing, month, row[:32])) == row[32:]:
                del self._seen[pairing, month, row[:32]]

    def compare(self, unlocked: Unlocked) -> int:
        """Every row must be the one that the log says, and open. Returns how many there are."""
        expected = dict(self._rows)
        compared = 0
        rows: list[RecordRow | SealedRow] = [*unlocked.file.records(), *unlocked.file.all_sealed()]
        for row in rows:
            compared += 1
            written = expected.pop(row.ref, None)
            if written is None:
                raise AuditBroken(f"row {row.ref} is in the file, but the log does not know it")
            if written != row.sequence:
                raise AuditBroken(
                    f"row {row.ref} is of audit entry {row.sequence}, but entry {written} wrote it again", at=written
                )
            try:
                if isinstance(row, RecordRow):
                    unlocked.keyset.check_record(row)
                else:
                    unlocked.keyset.open(row)
            except (VaultDamaged, ValueError) as exc:
                raise AuditBroken(f"row {row.ref} was altered", at=written) from exc
        if expected:
            ref, written = min(expected.items(), key=lambda item: item[1])
            raise AuditBroken(f"row {ref}, written by audit entry {written}, is missing", at=written)
        return compared + self._compare_seen(unlocked.file)

    def _compare_seen(self, file: VaultFile) -> int:
        expected = dict(self._seen)
        compared = 0
        for pairing, month, nonce, digest in file.all_seen():
            compared += 1
            if expected.pop((pairing.hex(), month, nonce.hex()), None) != digest.hex():
                raise AuditBroken(f"a seen message of pairing {pairing.hex()} is not the one that the log knows")
        if expected:
            raise AuditBroken(f"{len(expected)} seen messages that the log knows are missing from the file")
        return compared


def _seen_rows(groups: Iterable[dict[str, object]]) -> Iterator[tuple[str, str, str]]:
    for group in groups:
        messages = group["messages"]
        if not isinstance(messages, list):
            raise ValueError("not a list of messages")
        for _, _, row in messages:
            yield str(group["pairing"]), str(group["month"]), str(row)


def public_key_pem(spki: bytes) -> str:
    """DER SubjectPublicKeyInfo as PEM (RFC 7468)."""
    import base64
    import textwrap

    body = "\n".join(textwrap.wrap(base64.b64encode(spki).decode(), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def public_key_der(pem: str) -> bytes:
    """Raises UsageError."""
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError) as exc:
        raise UsageError("that is not a public key in PEM", "save one with 'medcrypt audit public-key'") from exc
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
