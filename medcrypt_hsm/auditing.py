"""Reading and verifying the whole log: ``show``, ``verify`` with the token, ``verify`` with public keys alone.

In: a vault file, and an unlocked vault or public keys. Verification is quiet when all is well and otherwise raises
with the entry or row that is wrong. ``scripts/verify_audit.py`` does the second kind without this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from medcrypt_hsm import audit
from medcrypt_hsm.audit import INTRODUCE, Chain, Entry
from medcrypt_hsm.errors import AuditBroken, NotAuthentic, UsageError, VaultDamaged
from medcrypt_hsm.keys import RecordRow, SealedRow
from medcrypt_hsm.tokens import AES_KW, P256_HPKE
from medcrypt_hsm.trust import TrustState
from medcrypt_hsm.unlocked import Unlocked, finished_state, parse_timestamp
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
        state = finished_state(file)
        chain = _verify_chain(file, state)
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
    for sequence, entry in numbered(unlocked):
        ledger.take(sequence, entry)
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
    on_record = {(token.id, token.name) for token in state.tokens.values()}
    introduced = {(key, chain.introduced[key].name) for key in chain.keys}
    if on_record != introduced:
        raise AuditBroken("the tokens on record are not those that the log introduced", at=chain.sequence)
    _check_tokens(state, chain.sequence)
    return chain


def _check_tokens(state: TrustState, at: int) -> None:
    """Signed rows that no honest program signs: a KEK that is none, a keyset for nobody."""
    for token in state.tokens.values():
        try:
            if token.profile == P256_HPKE:
                audit.load_p256(token.kek)
            elif token.profile != AES_KW or token.kek:
                raise NotAuthentic("not what its profile says")
        except NotAuthentic as exc:
            raise AuditBroken(f"the root KEK on record for token {token.name} cannot be its", at=at) from exc
    owners = {(token.name, token.id) for token in state.tokens.values()}
    for name, (owner, _) in state.keysets.items():
        if (name.partition(":")[2], owner) not in owners:
            raise AuditBroken(f"the keyset {name} is wrapped for no token of that name", at=at)


class _Ledger:
    """What the log says must be in the file: each row's newest writer, and every seen text."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._seen: dict[tuple[str, str, str], str] = {}
        self._newest_time = ""

    def take(self, sequence: int, entry: Entry) -> None:
        try:
            if self._newest_time and parse_timestamp(entry.time) < parse_timestamp(self._newest_time):
                raise AuditBroken(f"audit entry {sequence} is older than the one before it", at=sequence)
            self._newest_time = entry.time
            for ref in entry.detail.get("deletes", ()):
                self._rows.pop(ref, None)
            for ref in entry.detail.get("writes", ()):
                self._rows[ref] = sequence
            if entry.action in _SEEN_ACTIONS and entry.outcome in _DID_WRITE:  # a refusal lists no rows: it wrote none
                self._take_messages(entry.detail["messages"])
            elif entry.action == "message.failed":
                self._drop_messages(entry.detail["messages"])
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise AuditBroken(f"audit entry {sequence} tells of its rows in no known way", at=sequence) from exc

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
