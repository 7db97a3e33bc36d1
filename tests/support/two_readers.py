"""Logs for two readers, the package and scripts/standalone/verify_audit.py, and the judge that asks both.

``Log`` is two tokens, doctor and reserve, and what one of them signed next: whoever holds a token and its PIN can sign
anything. ``Rekeyed`` has root keys, keysets and two older months besides.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from medcrypt_hsm.errors import NotAuthentic, VaultError
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.verify import public_key_pem
from medcrypt_hsm.vault.inspection import verify_file
from tests.support.audited_practice import run
from tests.support.practice import Practice
from tests.support.store import rows
from tests.support.vault_builder import Row, SoftToken, VaultBuilder, canonical, ctx, sha256, u64

KEK, OTHER_KEK = SoftToken("kek").spki.hex(), SoftToken("other kek").spki.hex()
HPKE = {"profile": "p256-hpke", "kek": KEK}
ABANDONED: dict[str, object] = {"abandoned_sequence": 1, "abandoned_hash": "ab" * 32}


class Log(VaultBuilder):
    """Entry 1 introduces the doctor's token, 2 is sealed; by ``two`` entry 3 introduces the reserve."""

    def begin(self) -> Log:
        self.doctor, self.reserve = SoftToken("doctor"), SoftToken("reserve")
        self.open_month("2026-11")
        self.introduce(self.doctor, self.doctor)
        self.sealed(self.doctor)
        return self

    def two(self, **changed: object) -> Log:
        """The reserve's introduction and its row tell the same."""
        self.add_token_row(self.reserve, None, **{name: changed[name] for name in changed if name != "name"})
        self.introduce(self.reserve, self.doctor, row=False, **changed)
        return self

    def restore(self, by: SoftToken, detail: object = None, **members: object) -> Row:
        return self.clear("vault.restore", ABANDONED if detail is None else detail, by, **members)

    def row(self, kind: str, name: str, value: object) -> Log:
        """A row of the trust state, signed by the doctor."""
        self.set_trust(kind, name, value)
        self.sealed(self.doctor)
        return self

    def reserve_row(self, **changed: object) -> Log:
        self.add_token_row(self.reserve, None, **changed)
        self.sealed(self.doctor)
        return self

    def raw(self, kind: str, name: str, change: Callable[[bytes], bytes]) -> Log:
        self.trust[kind, name] = change(self.trust[kind, name])
        self.sealed(self.doctor)
        return self

    def clear_bytes(self, change: Callable[[bytes], bytes]) -> Log:
        """A restore's entry in other bytes, signed as they are."""
        stored = change(self.restore(self.doctor).stored)
        self.rows.pop()
        self.append(stored, self.doctor)
        return self

    def trusting(self, digest: bytes) -> Log:
        """A sealed entry whose trust digest is of another state."""
        row = self.sealed(self.doctor)
        row.trust, row.hash = digest, self.hash_of(row.sequence, digest, row.signer, row.stored)
        row.signature = self.doctor.sign(ctx("medcrypt/head", self.vault, u64(row.sequence), row.hash, digest))
        return self

    def third(self, **members: object) -> Log:
        """One more token is introduced by the doctor's, and the entry has these members."""
        entry = json.loads(self.introduce(SoftToken("third"), self.doctor).stored[1:])
        self.rows.pop()
        self.append(b"\0" + canonical(entry | members), self.doctor)
        return self


def compressed(token: SoftToken) -> SoftToken:
    """The same key, and another id."""
    point = token.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    other = SoftToken("third")
    other.key = token.key
    other.spki = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    other.id = sha256(other.spki)
    return other


def with_key(spki: bytes) -> SoftToken:
    token = SoftToken("third")
    token.spki, token.id = spki, sha256(spki)
    return token


def p384() -> bytes:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def keyset(log: Log, owner: SoftToken, **changed: object) -> dict[str, object]:
    return {"kek": 1, "token": owner.id.hex(), "wrapped": "00"} | changed


def row_of(log: Log, token: SoftToken) -> Any:
    log.add_token_row(token, name="scratch")
    return json.loads(log.trust.pop(("token", "scratch")))


def judge(log: Log, directory: Path, note: bytes | None = None, *, keys: tuple[SoftToken, ...] = ()) -> tuple[str, str]:
    """What package and script say, given the doctor's key, or others, and a checkpoint; empty if they accept it."""
    path, key = log.write(directory / "log.db"), directory / "doctor.pem"
    path.chmod(0o600)
    key.write_bytes(b"".join(each.pem() for each in keys or (log.doctor,)))
    kept = directory / "checkpoint.txt"
    if note is not None:
        kept.write_bytes(note)
    package = ""
    try:
        since = [] if note is None else [Checkpoint.parse(note)]
        assert verify_file(path, [each.spki for each in keys or (log.doctor,)], since).sequence == len(log.rows)
    except (VaultError, NotAuthentic) as exc:
        package = exc.message
    options = [] if note is None else ["--checkpoint", str(kept)]
    code, said = run(str(path), "--public-key", str(key), *options)
    assert code in (0, 5), said
    return package, said if code else ""


def package_accepts(path: Path, *keys: bytes) -> bool:
    try:
        return verify_file(path, keys).sequence == len(rows(path, "entries"))
    except VaultError:
        return False


def script_says(path: Path, *keys: bytes, more: tuple[str, ...] = ()) -> tuple[bool, Any]:
    argv = [str(path)]
    for number, key in enumerate(keys):
        pem = path.with_name(f"{number}.pem")
        pem.write_text(public_key_pem(key))
        argv += ["--public-key", str(pem)]
    code, said = run(*argv, *more, "--json")
    return code == 0, json.loads(said)


def audit_keys(practice: Practice) -> list[bytes]:
    """The retired tokens' too."""
    kept = [json.loads(value) for kind, _, value in rows(practice.path, "trust") if kind in ("token", "retired")]
    return [bytes.fromhex(row["audit_key"]) for row in kept]


PAIRING = "ab" * 8
SEPTEMBER, OCTOBER = "2026-09", "2026-10"


class Rekeyed(Log):
    """Entry 4 is the first after two tokens of root key 1, each with its keyset."""

    def begin(self) -> Rekeyed:
        super().begin()
        self.open_month(SEPTEMBER)
        self.open_month(OCTOBER)
        self.add_token_row(self.reserve)
        self.introduce(self.reserve, self.doctor, row=False)
        self.add_keyset(self.doctor)
        self.add_keyset(self.reserve)
        return self

    def hpke(self) -> Rekeyed:
        """The same, and the reserve's KEK is of the other profile."""
        self.rows.pop()
        self.add_token_row(self.reserve, None, **HPKE)
        self.introduce(self.reserve, self.doctor, row=False, **HPKE)
        return self

    def both(self, **more: Any) -> Rekeyed:
        self.rekey(self.doctor, self.reserve, **more)
        return self

    def committed(self, *present: SoftToken, **more: Any) -> Rekeyed:
        """An intent and its end, no further: what becomes of the rows is the test's affair."""
        self.intend(self.doctor)
        self.commit(self.doctor, *present, **more)
        return self

    def with_kek(self, **changed: object) -> Rekeyed:
        """The reserve's new KEK is told otherwise."""
        return self.committed(self.reserve, keks={"doctor": self.two_kek(), "reserve": self.two_kek(**changed)})

    def two_kek(self, **changed: object) -> dict[str, object]:
        return self.kek(generation=2) | changed

    def away(self) -> Rekeyed:
        """The reserve was not there: of its profile, it still has the keyset under its old KEK."""
        self.hpke().intend(self.doctor)
        self.commit(self.doctor)
        self.add_keyset(self.reserve)
        self.doom(self.reserve)
        return self

    def doom(self, gone: SoftToken, generation: int = 1, **changed: object) -> Rekeyed:
        """An old KEK of the newest re-key; the doctor signs the state."""
        told = next(r for r in reversed(self.rows) if b'"vault.rekey"' in r.stored and b'"done"' in r.stored)
        row = {"entry": told.sequence, "since": told.time, "token": gone.id.hex()}
        return self.signed("doomed", f"{generation}:{gone.name}", row | changed)

    def signed(self, kind: str, name: str, row: object) -> Rekeyed:
        self.set_trust(kind, name, row)
        self.sealed(self.doctor)
        return self

    def changed(self, kind: str, name: str, **members: object) -> Rekeyed:
        self.change_row(kind, name, **members)
        self.sealed(self.doctor)
        return self

    def without(self, kind: str, name: str) -> Rekeyed:
        del self.trust[kind, name]
        self.sealed(self.doctor)
        return self

    def retired(self, **more: Any) -> Rekeyed:
        self.rekey(self.doctor, retire=(self.reserve,), **more)
        return self

    def sync(self, **detail: object) -> Rekeyed:
        self.intend(self.doctor, reason="sync")
        self.synced(self.doctor, self.reserve, **detail)
        return self

    def newcomer(self, token: SoftToken) -> Row:
        row = self.introduce(token, self.doctor)
        self.add_keyset(token)
        self.sealed(self.doctor)
        return row

    def hold(self, name: str = "0123456789abcdef", **changed: object) -> Rekeyed:
        row = {"nonce": "00" * 12, "sealed": "00" * 40, "sequence": 2}
        return self.signed("hold", name, row | changed)

    def begun(self, **changed: object) -> Rekeyed:
        self.intend(self.doctor)
        self.change_row("rekey", "", **changed)
        self.sealed(self.doctor)
        return self

    def tell(self, action: str, outcome: str, detail: object) -> Row:
        return self.clear(action, detail, self.doctor, outcome=outcome)

    def reserve_kek(self, **row: object) -> Rekeyed:
        """The reserve's new KEK is the other one, and its row says what ``row`` does."""
        new = {"doctor": self.two_kek(), "reserve": self.two_kek(attestation="not-attested", kek=OTHER_KEK)}
        self.hpke().intend(self.doctor)
        self.change_row("token", "reserve", **({"kek": OTHER_KEK, "attestation": "not-attested"} | row))
        self.commit(self.doctor, self.reserve, keks=new)
        return self


def retired_row(log: Rekeyed, token: SoftToken) -> dict[str, object]:
    row = json.loads(log.trust["token", token.name]) | {"entry": 4, "since": log.now(), "was": "absent"}
    return {name: value for name, value in row.items() if name not in ("attestation", "kek", "touch")}
