"""Builds vault files with a break-glass ceremony, straight from docs/spec, for the tests of
scripts/standalone/recover.py.

The keyset, the custodians' keys and the seed are in host memory, and all that the script opens is really sealed. Rows
are made by the package's own key schedule; the log is that of tests/support/vault_builder.py, its sealed entries
readable here. The script shares no code with either.

The practice of ``make_practice``: `praxis` makes the vault, pairs with a v2 and a v1 patient in 2026-09, opens
2026-10, holds the ceremony (two of three custodians), and opens 2026-11.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.crypto import shamir, xwing
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.messages.wire import v1
from medcrypt_hsm.vault.keyset import HostKeyset
from medcrypt_hsm.vault.store.rows import RecordRow, SealedRow
from scripts.standalone import patient, recover
from scripts.standalone.patient import Month
from tests.support.store import by_hand
from tests.support.vault_builder import Row, SoftToken, VaultBuilder, canonical, ctx, sha256, u64

V2_PATIENT, V1_PATIENT, V1_SECRET = "EXP-00417", "EXP-00112", "secreto compartido 4711 ejemplo"
MONTHS = ("2026-09", "2026-10", "2026-11")
CUSTODIANS = ("ana", "berta", "carl")
THRESHOLD = 2


def statement(by: SoftToken, type_: str, /, **members: object) -> tuple[dict[str, str], bytes]:
    """As an entry has it, and its id."""
    text = canonical({"type": type_, "version": 1, "enclosed": sha256(b"").hex()} | members).decode()
    data = ctx(type_, text)
    return {"signature": by.sign(data).hex(), "statement": text}, sha256(data)


class Ceremony(NamedTuple):
    id: bytes
    seed: bytes
    shares: tuple[bytes, ...]
    signer: SoftToken
    approvers: tuple[SoftToken, ...]
    vault: bytes

    def commitment(self, x: int) -> bytes:
        numbers = (bytes([x]), bytes([THRESHOLD]), bytes([len(self.shares)]))
        return sha256(ctx("medcrypt/share", self.vault, self.id, self.signer.id, *numbers, self.shares[x - 1]))

    def share(self, x: int, /, **changed: object) -> bytes:
        """The content of a share file."""
        value: dict[str, object] = {
            "audit_key": self.signer.id.hex(), "ceremony": self.id.hex(), "of": len(self.shares),
            "threshold": THRESHOLD, "vault": self.vault.hex(), "version": 1, "x": x,
            "y": self.shares[x - 1].hex() if 0 < x <= len(self.shares) else "00" * 32,
        }  # fmt: skip
        return canonical(value | changed) + b"\n"


@dataclass
class OpenableVault(VaultBuilder):
    """A ``VaultBuilder`` that has the keys of what it seals. ``wrapped`` and ``values`` are the rows of its tables."""

    keys: bytes = field(default_factory=lambda: os.urandom(96))
    wrapped: dict[str, RecordRow] = field(default_factory=dict)
    values: dict[str, SealedRow] = field(default_factory=dict)
    texts_seen: list[tuple[bytes, str, bytes, bytes]] = field(default_factory=list)
    log_keys: list[bytes] = field(default_factory=list)
    seen_root: bytes = field(default_factory=lambda: os.urandom(32))
    chains: dict[bytes, tuple[Month, bytes]] = field(default_factory=dict)
    ceremony: Ceremony | None = None

    @property
    def keyset(self) -> HostKeyset:
        return self.keyset_of(self.keys)

    def keyset_of(self, keys: bytes) -> HostKeyset:
        copies = Secret(bytes(keys[:32])), Secret(bytes(keys[32:64])), Secret(bytes(keys[64:]))
        return HostKeyset(HostKeys(), copies, self.vault)

    # Entries and rows

    def told(self, action: str, detail: object, by: SoftToken, /, **members: object) -> Row:
        """A sealed entry."""
        sequence, number = len(self.rows) + 1, len(self.log_keys)
        entry: dict[str, Any] = {"action": action, "actor": "mara", "detail": detail, "outcome": "done", "subject": ""}
        nonce = os.urandom(12)
        aad = ctx("medcrypt/audit/sealed", self.vault, u64(sequence), u64(number))
        plain = canonical(entry | {"time": self.now(), "token": by.name} | members)
        sealed = AESGCM(self.log_keys[-1]).encrypt(nonce, plain, aad)
        return self.append(b"\x01" + number.to_bytes(4, "big") + nonce + sealed, by)

    def sealed(self, by: SoftToken, *, log_key: int = 1) -> Row:
        return self.told("month.shred", {"certificate": {}}, by)

    def record(self, purpose: str, pairing: bytes, month: str, key: bytes) -> str:
        """Written by the entry that comes next."""
        row = self.keyset.wrap(purpose, pairing, month, len(self.rows) + 1, Secret(bytes(key)))
        self.wrapped[row.ref] = row
        return row.ref

    def value(self, purpose: str, pairing: bytes, value: dict[str, object]) -> str:
        lookup = self.keyset.lookup(str(value["id"])) if purpose == "patient" else b""
        row = self.keyset.seal(purpose, pairing, len(self.rows) + 1, value, lookup=lookup)
        self.values[row.ref] = row
        return row.ref

    def pair(self, by: SoftToken, patient_id: str, protocol: str, **changed: object) -> bytes:
        pairing, first = os.urandom(8), Month.parse(MONTHS[0])
        writes = []
        if protocol == "v2":
            self.chains[pairing] = first, os.urandom(32)
            writes += self.chain_rows(pairing)
        else:
            writes.append(self.value("v1-secret", pairing, {"secret": V1_SECRET}))
        row: dict[str, object] = {
            "added": self.now(), "confirmed": True, "entry": len(self.rows) + 1, "first": str(first), "id": patient_id,
            "label": "Paciente\tEjemplo", "protocol": protocol, "replaces": None, "state": "active", "tries": 0,
        }  # fmt: skip
        writes.append(self.value("patient", pairing, row | changed))
        self.told("patient.add", {"writes": writes}, by, subject=patient_id)
        return pairing

    def chain_rows(self, pairing: bytes) -> list[str]:
        month, chain = self.chains[pairing]
        key = patient.message_key(chain, pairing, month)
        return [self.record("message", pairing, str(month), key), self.record("chain", pairing, str(month), chain)]

    def next_month(self, by: SoftToken) -> None:
        writes, deletes = [], []
        for pairing, (month, chain) in self.chains.items():
            old = f"record:chain:{pairing.hex()}:{month}"
            del self.wrapped[old]
            deletes.append(old)
            self.chains[pairing] = month.next(), patient.next_chain(chain, pairing, month.next())
            writes += self.chain_rows(pairing)
        self.open_month(str(month.next()))
        self.told("month.open", {"deletes": deletes, "writes": writes}, by)

    # Messages

    def key(self, pairing: bytes, month: str) -> bytes:
        """M(month) of a v2 pairing, from the newest chain key or the row that is kept."""
        here, chain = self.chains[pairing]
        if (row := self.wrapped.get(f"record:message:{pairing.hex()}:{month}")) is not None:
            return bytes(self.keyset._wrapping._unwrap(row.wrapped).value)  # type: ignore[attr-defined]
        while str(here) < month:
            here = here.next()
            chain = patient.next_chain(chain, pairing, here)
        return patient.message_key(chain, pairing, here)

    def message(
        self, pairing: bytes, month: str, text: str | bytes, *, sender: str = "p", part: str = "1.1", nonce: bytes = b""
    ) -> str:
        raw = text.encode() if isinstance(text, str) else text
        nonce = nonce or os.urandom(12)
        return patient.seal(self.key(pairing, month), pairing, Month.parse(month), sender, part, raw, nonce)

    def message_v1(self, month: str, text: str, *, patient_id: str = V1_PATIENT) -> str:
        from medcrypt_hsm.month import Month as Period

        nonce = os.urandom(12)
        key = v1.month_key(V1_SECRET, Period.parse(month))
        return v1.encode(patient_id, nonce, AESGCM(key).encrypt(nonce, text.encode(), patient_id.encode()))

    def see(self, pairing: bytes, month: str, text: str, how: str = "read") -> None:
        """A row of `seen`, as of a text that was read (or sent) before."""
        root = self.keyset.seen_root(self.wrapped["record:seen::"])
        nonce = base64.b64decode(text[:-1].split(":")[-3])
        key = root.key(pairing, month)
        self.texts_seen.append((pairing, month, *key.nonces([nonce]), *getattr(key, how)([text])))

    # Ceremonies and re-keys

    def carry_over(self, drop: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
        """All rows under a new keyset, with a new log key: what the entry of the commit writes and deletes."""
        keys = os.urandom(96)
        old, new = self.keyset, self.keyset_of(keys)
        deletes = [ref for ref, row in self.wrapped.items() if row.purpose == "message" and row.month in drop]
        self.wrapped = {ref: old.carry(row, new) for ref, row in self.wrapped.items() if ref not in deletes}
        self.values = {ref: old.carry_sealed(row, new) for ref, row in self.values.items()}
        self.keys = keys
        self.log_keys.append(os.urandom(32))
        return [self.record("log", b"", f"{len(self.log_keys):08}", self.log_keys[-1])], deletes

    def escrow(self, **changed: object) -> None:
        """Of the generation that comes next."""
        assert self.ceremony is not None
        generation = self.generation + 1
        info = ctx("medcrypt/escrow", self.vault, u64(generation), self.ceremony.id)
        sealed = xwing.seal(xwing.public_key(self.ceremony.seed), info, self.keys)
        row = {"ceremony": self.ceremony.id.hex(), "generation": generation, "sealed": sealed.hex()}
        self.set_trust("escrow", "", row | changed)

    def hold_ceremony(self, by: SoftToken, *, reason: str = "ceremony", **changed: object) -> Ceremony:
        """The re-key with a custody. ``changed``: members of the custody."""
        self.intend(by, reason=reason)
        seed, before, now = os.urandom(32), self.ceremony, self.now()
        if before is not None:
            for approver in before.approvers:
                row = json.loads(self.trust["custodian", approver.name])
                kept = {member: row[member] for member in ("approval_key", "label", "model", "serial", "uri")}
                old = {"entry": len(self.rows) + 1, "since": now}
                self.set_trust("oldshare", f"{before.id.hex()}:{approver.name}", kept | old)
        shares = tuple(bytes(share.value) for share in shamir.split(seed, THRESHOLD, len(CUSTODIANS)))
        approvers = tuple(SoftToken(name) for name in CUSTODIANS)
        self.ceremony = ceremony = Ceremony(os.urandom(6), seed, shares, by, approvers, self.vault)
        public, entry, since = xwing.public_key(seed), len(self.rows) + 1, now
        custodians = []
        for x, approver in enumerate(approvers, 1):
            told_of = {
                "approval_key": approver.spki.hex(), "attestation": "token-claimed", "kek": "", "model": "soft",
                "commitment": ceremony.commitment(x).hex(), "profile": "aes-kw", "serial": str(x), "x": x,
            }  # fmt: skip
            custodians.append(told_of | {"name": approver.name})
            more = {"drilled": "", "label": "Custodia", "uri": "pkcs11:"}
            self.set_trust("custodian", approver.name, told_of | more)
        told = {"ceremony": ceremony.id.hex(), "threshold": THRESHOLD}
        row = {"audit_key": by.id.hex(), "entry": entry, "key": public.hex(), "since": since}
        self.set_trust("breakglass", "", told | row)
        custody = told | {"custodians": custodians, "key": sha256(public).hex()} | changed
        writes, deletes = self.carry_over()
        self.escrow()
        assert not deletes
        self.commit(by, custody=custody, writes=writes)
        self.end(by)
        return ceremony

    def rekey_again(self, by: SoftToken, *, reason: str = "shred", shred: tuple[str, ...] = (), **more: Any) -> None:
        """Without a ceremony: the new keyset is sealed to the key on record."""
        self.intend(by, reason=reason)
        writes, deletes = self.carry_over(shred)
        self.escrow()
        rows: dict[str, Any] = {"deletes": deletes, "writes": writes} if deletes else {"writes": writes}
        self.commit(by, shred=shred, **rows, **more)
        self.end(by)

    # Uses

    def request(self, by: SoftToken, scope: str, **changed: object) -> tuple[dict[str, str], bytes]:
        """The signed statement and the request id. ``by`` gets its name as a guest."""
        assert self.ceremony is not None
        registered = [json.loads(value)["id"] for (kind, _), value in self.trust.items() if kind == "token"]
        newest = next(row for row in reversed(self.rows) if row.signer.hex() in registered)
        members: dict[str, object] = {
            "ceremony": self.ceremony.id.hex(), "created": self.now(), "hash": newest.hash.hex(), "key": "00" * 1216,
            "expires": f"2026-11-{len(self.rows) + 3:02}T09:00:00Z", "scope": scope, "sequence": newest.sequence,
            "signer": by.spki.hex(), "vault": self.vault.hex(),
        }  # fmt: skip
        signed, id_ = statement(by, "medcrypt/breakglass/request", **members | changed)
        by.name = f"bg-{id_.hex()[:8]}"
        return signed, id_

    def approval(self, x: int, request: bytes, /, **changed: object) -> dict[str, str]:
        assert self.ceremony is not None
        by = self.ceremony.approvers[x - 1]
        members: dict[str, object] = {
            "audit_key": self.ceremony.signer.id.hex(), "ceremony": self.ceremony.id.hex(), "custodian": by.name,
            "commitment": self.ceremony.commitment(x).hex(), "request": request.hex(), "time": self.now(),
            "vault": self.vault.hex(), "x": x,
        }  # fmt: skip
        return statement(by, "medcrypt/breakglass/approval", **members | changed)[0]

    def open_patient(
        self, by: SoftToken, *, xs: tuple[int, ...] = (1, 3), approval: Mapping[str, object] | None = None,
        **request: object
    ) -> bytes:  # fmt: skip
        """`breakglass.open` for one patient, approved by ``xs``. ``approval`` and ``request`` are what is changed."""
        signed, id_ = self.request(by, "patient", **request)
        approvals = [self.approval(x, id_, **approval or {}) for x in xs]
        self.clear("breakglass.open", {"approvals": approvals, "request": signed}, by)
        return id_

    def close_patient(self, by: SoftToken, request: bytes, back: SoftToken) -> None:
        """What a guest writes, and then a registered token."""
        entry, since = len(self.rows), self.rows[-1].time
        self.told("breakglass.read", {"patient": V2_PATIENT, "reason": "urgencia"}, by, subject=V2_PATIENT)
        self.clear("breakglass.close", {"request": request.hex()}, by)
        use = {"answered": "", "entry": entry, "phase": "done", "scope": "patient", "since": since}
        self.set_trust("use", request.hex(), use)
        self.told("audit.show", {"filter": {}}, back)

    def recover(self, by: SoftToken, retire: SoftToken) -> None:
        """The re-key that ends the opening of the practice."""
        for kind, name in self.trust:
            if kind == "use":
                self.change_row(kind, name, phase="done")
        self.rekey_again(by, reason="recover", retire=(retire,))

    def open_practice(self, heir: SoftToken, **changed: object) -> None:
        """``heir`` becomes a token of the vault. ``changed``: members of its introduction."""
        by = SoftToken("")
        request, id_ = self.request(by, "practice")
        approvals = [self.approval(1, id_), self.approval(2, id_)]
        self.add_token_row(heir, serial="99")
        self.keks[heir.name] = self.generation
        self.add_keyset(heir)
        use = {"answered": "", "entry": len(self.rows) + 1, "phase": "open", "scope": "practice", "since": self.now()}
        self.set_trust("use", id_.hex(), use)
        token = {
            "audit_key": heir.spki.hex(), "id": heir.id.hex(), "name": heir.name, "profile": "aes-kw", "serial": "99",
            "model": "soft", "kek": "", "attestation": "token-claimed",
        }  # fmt: skip
        told = {"approvals": approvals, "request": request, "token": token | changed}
        self.clear("breakglass.open", told, by)

    # Files

    def write(self, path: Path) -> Path:
        super().write(path)
        with by_hand(path) as db:
            db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", self.wrapped.values())
            db.executemany("INSERT INTO sealed VALUES (?, ?, ?, ?, ?, ?)", self.values.values())
            db.executemany("INSERT INTO seen VALUES (?, ?, ?, ?)", self.texts_seen)
        return path


@dataclass
class Practice:
    directory: Path
    praxis: SoftToken
    built: OpenableVault
    v2: bytes  # pairings
    v1: bytes

    @property
    def ceremony(self) -> Ceremony:
        assert self.built.ceremony is not None
        return self.built.ceremony

    def sign_anew(self) -> None:
        """One more entry, so that the trust state as it is now is what the newest head signed."""
        self.built.told("audit.show", {"filter": {}}, self.praxis)

    def drop_ceremony(self) -> None:
        """A log that had none, of the same vault."""
        self.built = OpenableVault(vault=self.built.vault, ceremony=self.built.ceremony)
        self.built.log_keys.append(os.urandom(32))
        self.built.open_month(MONTHS[0])
        self.built.introduce(self.praxis, self.praxis)

    def file(self) -> Path:
        return self.built.write(self.directory / "practice.vault")

    def shares(self, *shares: int | bytes) -> list[str]:
        """Arguments: the shares of the present ceremony by x, or what somebody made of one."""
        arguments = []
        for number, share in enumerate(shares, 1):
            path = self.directory / f"share-{number}"
            path.write_bytes(share if isinstance(share, bytes) else self.ceremony.share(share))
            path.chmod(0o600)
            arguments += ["--share", str(path)]
        return arguments

    def run(
        self, command: str, *shares: int | bytes, text: str = "", file: Path | None = None, more: tuple[str, ...] = ()
    ) -> Run:
        return run(command, str(file or self.file()), *self.shares(*shares or (1, 2)), *more, text=text)

    def refused(self, why: str, *shares: int | bytes, file: Path | None = None) -> Run:
        """One fault, one error: its words, a hint, exit code 5, and nothing shown."""
        done = self.run("patients", *shares, file=file)
        assert done.code == 5, done
        assert done.err.startswith("error: "), done.err
        assert why in done.err, done.err
        assert done.err.count("\n") == 2, done.err
        assert "\nhint: " in done.err
        assert not done.out
        return done

    def secrets(self) -> Iterator[bytes]:
        """What no output may have, in any encoding."""
        yield from (self.ceremony.seed, *self.ceremony.shares, *self.built.log_keys, self.built.seen_root)
        yield from (self.built.keys[i : i + 32] for i in (0, 32, 64))
        yield from (chain for _, chain in self.built.chains.values())
        yield from (self.built.key(self.v2, month) for month in MONTHS)
        yield V1_SECRET.encode()


class Run(NamedTuple):
    code: int
    out: str
    err: str


def run(*argv: str, text: str = "") -> Run:
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
    with redirect_stdout(out), redirect_stderr(err), _stdin(stdin):
        code = recover.main(argv)
    assert isinstance(out.buffer, io.BytesIO)
    out.flush()
    return Run(code, out.buffer.getvalue().decode(), err.getvalue())


@contextmanager
def _stdin(stream: io.TextIOWrapper) -> Iterator[None]:
    before, sys.stdin = sys.stdin, stream
    try:
        yield
    finally:
        sys.stdin = before


def entries_of(said: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


def make_practice(directory: Path) -> Practice:
    """See the module's docstring."""
    praxis, built = SoftToken("praxis"), OpenableVault()
    built.open_month(MONTHS[0])
    built.introduce(praxis, praxis)
    built.add_keyset(praxis)
    built.log_keys.append(os.urandom(32))
    writes = [built.record("log", b"", "00000001", built.log_keys[0]), built.record("seen", b"", "", built.seen_root)]
    built.told("vault.create", {"writes": writes}, praxis)
    v2, v1_ = built.pair(praxis, V2_PATIENT, "v2"), built.pair(praxis, V1_PATIENT, "v1")
    built.next_month(praxis)
    built.hold_ceremony(praxis)
    built.next_month(praxis)
    return Practice(directory, praxis, built, v2, v1_)
