"""scripts/standalone/recover.py: one fault in a file a test, and what is said about it.

The vaults are those of tests/support/openable_vault.py. What the script opens: tests/standalone/test_recover.py. Uses
of break-glass that nobody allowed: tests/standalone/test_recover_openings.py.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from medcrypt_hsm.crypto import xwing
from tests.support.openable_vault import MONTHS, V2_PATIENT, OpenableVault, Practice, make_practice
from tests.support.store import RowRefused, tamper
from tests.support.vault_builder import SoftToken, ctx, sha256, u64


@pytest.fixture
def practice(tmp_path: Path) -> Practice:
    return make_practice(tmp_path)


def change(practice: Practice, kind: str, name: str, **changed: object) -> None:
    practice.built.change_row(kind, name, **changed)
    practice.sign_anew()


def reseal(practice: Practice, *, generation: int = 2, seed: bytes = b"", keys: bytes = b"") -> None:
    info = ctx("medcrypt/escrow", practice.built.vault, u64(generation), practice.ceremony.id)
    public = xwing.public_key(seed or practice.ceremony.seed)
    sealed = xwing.seal(public, info, keys or practice.built.keys)
    change(practice, "escrow", "", sealed=sealed.hex())


def rehash(practice: Practice) -> None:
    row = practice.built.rows[2]
    row.stored = row.stored[:-1] + bytes([row.stored[-1] ^ 1])
    practice.built.rehash(3)


def retired_signs(practice: Practice) -> None:
    spare = SoftToken("reserve")
    practice.built.introduce(spare, practice.praxis, serial="98")
    practice.built.rekey_again(practice.praxis, reason="remove-token", retire=(spare,))
    practice.built.told("audit.show", {"filter": {}}, spare)


def ceremony_again(practice: Practice, **changed: object) -> None:
    practice.built.hold_ceremony(practice.praxis, reason="rotate", **changed)


def other_key(practice: Practice) -> None:
    public = xwing.public_key(bytes(32))
    ceremony_again(practice, key=sha256(public).hex())
    change(practice, "breakglass", "", key=public.hex())


def custodians_of(practice: Practice) -> list[dict[str, object]]:
    told: list[dict[str, object]] = json.loads(practice.built.rows[6].stored[1:])["detail"]["custody"]["custodians"]
    return told


def one_custodian_twice(practice: Practice) -> list[dict[str, object]]:
    one, two, three = custodians_of(practice)
    return [one, two, three | {"name": "ana"}]


def introduces(**changed: object) -> Callable[[Practice], object]:
    return lambda p: p.built.introduce(SoftToken("reserve"), p.praxis, row=False, **{"serial": "98"} | changed)


def spki_of(curve: ec.EllipticCurve, point: PublicFormat) -> str:
    """SPKI hex of a key, its point written as ``point`` says."""
    key = ec.generate_private_key(curve).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    whole, short = (key.public_bytes(Encoding.X962, p) for p in (PublicFormat.UncompressedPoint, point))
    less = len(whole) - len(short)
    der = der[:1] + bytes([der[1] - less]) + der[2:].replace(whole, short)
    return der.replace(b"\x03\x42\x00", bytes([3, 0x42 - less, 0])).hex()


P256, WHOLE, SHORT = ec.SECP256R1(), PublicFormat.UncompressedPoint, PublicFormat.CompressedPoint

NOT_THE_FILE: dict[str, tuple[Callable[[Practice], object], str]] = {
    "no ceremony": (Practice.drop_ceremony, "this vault has no break-glass ceremony"),
    "an entry without a signature of its own": (rehash, "entry 3: its head's signature is not that of token 'praxis'"),
    "a stranger's entry": (lambda p: p.built.told("notes", {}, SoftToken("x")), "which was not introduced before"),
    "a name of another": (
        lambda p: p.built.clear("vault.restore", {}, p.praxis, token="x"),
        "entry 10: it names token 'x' but 'praxis' signed it",
    ),
    "an unknown action": (
        lambda p: p.built.clear("vault.polish", {}, p.praxis),
        "'vault.polish', 'done' is not in the clear by this version of the spec",
    ),
    "a time that is none": (
        lambda p: p.built.clear("vault.restore", {}, p.praxis, time="2026-13-01T00:00:00Z"),
        "it: '2026-13-01T00:00:00Z' is not a time",
    ),
    "a time before": (
        lambda p: p.built.clear("vault.restore", {}, p.praxis, time="2026-11-02T00:00:00Z"),
        "its time is before an earlier entry's",
    ),
    "neither clear nor sealed": (lambda p: p.built.append(b"\x02{}", p.praxis), "it is neither clear nor sealed"),
    "sealed but short": (
        lambda p: p.built.append(b"\1\0\0\0\1" + bytes(27), p.praxis),
        "a sealed entry that is too short",
    ),
    "empty": (lambda p: p.built.append(b"", p.praxis), "the stored entry is empty or not a blob"),
    "a key that is none": (introduces(audit_key="ab" * 91), "the introduced audit key is not a public key"),
    "a key of another curve": (
        introduces(audit_key=spki_of(ec.SECP256K1(), WHOLE)),
        "the introduced audit key is not a P-256 key",
    ),
    "a key in another encoding": (
        introduces(audit_key=spki_of(P256, SHORT)),
        "the introduced audit key is not encoded as the spec says",
    ),
    "another key's id": (introduces(id="ab" * 32), "the introduced token's id is not its audit key's fingerprint"),
    "a name once more": (introduces(name="praxis"), "token 'praxis' or its key was introduced before"),
    "another generation": (
        lambda p: p.built.intend(p.praxis, generation=4),
        "it is not of the generation that is due, 3",
    ),
    "two re-keys at once": (
        lambda p: (p.built.intend(p.praxis), p.built.intend(p.praxis)),
        "vault.rekey begins without a reason, or before what was begun has ended",
    ),
    "another log key": (
        lambda p: p.built.rekey_again(p.praxis, log_key=2),
        "the re-key's log key is not of its generation",
    ),
    "a stranger is retired": (
        lambda p: p.built.rekey_again(p.praxis, retired=["ab" * 32]),
        "the re-key retires what is no other token that is registered",
    ),
    "custodians out of order": (
        lambda p: ceremony_again(p, custodians=custodians_of(p)[::-1]),
        "the custodians' x are not 1 to n",
    ),
    "a token that was retired": (retired_signs, "signed by token 'reserve', which entry 12 retired"),
    "a vault that was not finished": (
        lambda p: p.built.set_trust("vault", "", {"id": p.built.vault.hex(), "unfinished": "pkcs11:"}),
        "the vault was never finished",
    ),
    "another generation in the row": (
        lambda p: change(p, "vault", "", generation=1),
        "the vault row's generation or log key is not that of the log",
    ),
    "trust rows that nobody signed": (
        lambda p: p.built.change_row("custodian", "ana", commitment="00" * 32),
        "the trust state is not the one that the newest head signed",
    ),
    "another custodian's row": (
        lambda p: change(p, "custodian", "ana", commitment="00" * 32),
        "the row of custodian 'ana' is not what the ceremony's entry told",
    ),
    "another threshold": (
        lambda p: change(p, "breakglass", "", threshold=3),
        "the break-glass row is not that of the ceremony's entry",
    ),
    "another key": (
        lambda p: change(p, "breakglass", "", key="00" * 1216),
        "the break-glass key on record is not the one that the ceremony's entry names",
    ),
    "a key that the shares do not give": (
        other_key,
        "the shares are right, but do not give the break-glass key on record",
    ),
    "an escrow of another generation": (
        lambda p: change(p, "escrow", "", generation=1),
        "the escrow is not of the present ceremony and generation",
    ),
    "an escrow sealed for another generation": (lambda p: reseal(p, generation=1), "the escrow does not open"),
    "an escrow for another key": (lambda p: reseal(p, seed=bytes(32)), "the escrow does not open"),
    "an escrow that is short": (
        lambda p: reseal(p, keys=bytes(64)),
        "trust row 'escrow' '': 'sealed' is not what the spec says",
    ),
    "a ceremony without a custody": (
        lambda p: p.built.rekey_again(p.praxis, reason="rotate"),
        "a re-key of reason 'rotate' lacks a custody",
    ),
    "a ceremony id once more": (
        lambda p: ceremony_again(p, ceremony=p.ceremony.id.hex()),
        "the custody's ceremony id is an earlier one's",
    ),
    "custodians of one name": (
        lambda p: ceremony_again(p, custodians=one_custodian_twice(p)),
        "the custody's threshold, names or approval keys cannot be",
    ),
    "a threshold of one": (
        lambda p: ceremony_again(p, threshold=1),
        "the custody's threshold, names or approval keys cannot be",
    ),
    "a re-key that was not intended": (
        lambda p: p.built.commit(p.praxis),
        "entry 10: vault.rekey ends that was not intended, or not so",
    ),
    "a log key that was not made": (
        lambda p: p.built.append(b"\x01\0\0\0\x07" + bytes(60), p.praxis),
        "an entry is sealed under a log key that was not made yet",
    ),
}


class TestFile:
    @pytest.mark.parametrize("what", NOT_THE_FILE)
    def test_a_log_that_does_not_lead_from_the_shares_to_the_keys(self, practice: Practice, what: str) -> None:
        fault, why = NOT_THE_FILE[what]
        fault(practice)
        practice.refused(why)

    def test_a_file_that_somebody_without_a_token_made(self, practice: Practice, tmp_path: Path) -> None:
        """All that is public is as in the real file, and the keyset is the forger's."""
        real, own, forged = practice.ceremony, SoftToken("praxis"), OpenableVault(vault=practice.built.vault)
        forged.open_month(MONTHS[0])
        forged.introduce(own, own)
        forged.log_keys.append(os.urandom(32))
        told = json.loads(practice.built.rows[6].stored[1:])["detail"]["custody"]
        forged.hold_ceremony(own, **told)
        for (kind, name), value in practice.built.trust.items():
            if kind in ("custodian", "breakglass"):
                forged.trust[kind, name] = value
        forged.change_row("breakglass", "", entry=3, since=forged.rows[2].time, audit_key=own.id.hex())
        forged.change_row("escrow", "", ceremony=real.id.hex())
        forged.told("audit.show", {}, own)
        file = forged.write(tmp_path / "forged")
        practice.refused("names another audit key than signed the ceremony (entry 3)", file=file)
        # To claim that it was the real token is of no use either: what signed the entry counts, not what a row says.
        forged.change_row("breakglass", "", audit_key=real.signer.id.hex())
        forged.told("audit.show", {}, own)
        practice.refused("the break-glass row is not that of the ceremony's entry", file=forged.write(file))

    @pytest.mark.parametrize(
        ("statement", "why"),
        [
            ("UPDATE entries SET stored = zeroblob(9) WHERE sequence = 3", "entry 3: its hash does not follow"),
            ("UPDATE entries SET trust = zeroblob(31) WHERE sequence = 3", "is not a blob of the right length"),
            ("DELETE FROM entries WHERE sequence = 4", "entry 4: it is missing"),
            ("DELETE FROM entries", "the log is empty"),
            ("DELETE FROM entries WHERE sequence > 8", "the trust state is not the one that the newest head signed"),
            ("DELETE FROM trust WHERE kind = 'vault'", "the trust state has no row 'vault' ''"),
            ("DELETE FROM trust WHERE kind = 'escrow'", "the trust state is not the one"),
            ("UPDATE trust SET value = 'x' || value WHERE kind = 'vault'", "not readable as a vault"),
            ("UPDATE trust SET value = CAST('{}' AS BLOB) WHERE kind = 'vault'", "has other members than the spec's"),
            ("PRAGMA application_id = 1", "not a medcrypt vault of schema 1 or 2: application_id is not 1296385091"),
            ("PRAGMA user_version = 3", "not a medcrypt vault of schema 1 or 2: user_version is not 1 or 2"),
            ("CREATE TABLE more (x)", "the file's schema is not as the spec says"),
            ("CREATE TRIGGER t AFTER INSERT ON trust BEGIN SELECT 1; END", "the file's schema is not as the spec says"),
            ("DROP TABLE seen", "the file's schema is not as the spec says"),
        ],
    )
    def test_a_file_that_was_tampered_with(self, practice: Practice, statement: str, why: str) -> None:
        file = practice.file()
        try:
            tamper(file, statement)
        except RowRefused:  # STRICT: text is no blob
            tamper(file, "UPDATE trust SET value = zeroblob(8) WHERE kind = 'vault'")
            why = "trust row 'vault' '' is not canonical JSON"
        practice.refused(why, file=file)

    def test_what_is_said_moves_no_cursor(self, practice: Practice) -> None:
        file = tamper(practice.file(), "UPDATE records SET month = char(27) || '[2J' WHERE purpose = 'chain'")
        assert "2J was altered" in (said := practice.run("check", file=file).err)
        assert "\x1b" not in said

    def test_a_month_that_is_none(self, practice: Practice) -> None:
        practice.built.open_month("2026-13")
        practice.sign_anew()
        assert "the trust state has no month, or a row of one that is none" in practice.run("check").err

    def test_an_index_that_hides_a_row(self, practice: Practice) -> None:
        """What is looked up must be what is there: SQLite answers by the index without looking at the table."""
        file, writable = practice.file(), "PRAGMA writable_schema = ON"
        hide = "UPDATE sqlite_schema SET sql = 'CREATE INDEX sealed_lookup ON sealed (lookup){}' WHERE type = 'index'"
        tamper(file, writable, hide.format(" WHERE purpose = ''x''"))
        tamper(file, "DELETE FROM sealed WHERE purpose = 'patient'")
        tamper(file, writable, hide.format(""))
        practice.refused("SQLite's own check finds the file damaged", file=file)

    def test_a_journal_that_is_a_link(self, practice: Practice, tmp_path: Path) -> None:
        file = practice.file()
        file.with_name(file.name + "-wal").symlink_to(tmp_path / "elsewhere")
        practice.refused("beside the file lies a journal that is not a regular file", file=file)

    def test_what_is_no_vault(self, practice: Practice, tmp_path: Path) -> None:
        for content in (b"", b"\0" * 4096, b"not a vault", practice.file().read_bytes()[:5000]):
            (tmp_path / "x").write_bytes(content)
            done = practice.run("check", file=tmp_path / "x")
            assert (done.code, done.out, done.err.count("\n")) == (5, "", 2), done
        for path in (tmp_path, tmp_path / "nowhere", tmp_path / "a\0b"):
            done = practice.run("check", file=path)
            assert done.code in (2, 5)
            assert (done.out, done.err.count("\n")) == ("", 2), done

    def test_any_byte_may_be_another(self, practice: Practice) -> None:
        content, chance, path = practice.file().read_bytes(), random.Random(4711), practice.directory / "flipped"
        codes = set()
        for _ in range(150):
            flipped = bytearray(content)
            flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            done = practice.run("check", file=path)
            assert "error: " in done.err or done.code == 0
            codes.add(done.code)
        assert codes <= {0, 5}  # 0: where nothing is kept


class TestRows:
    """Who can write to the file can alter these rows: `check` finds it, and the rest still opens."""

    @pytest.mark.parametrize(
        ("statement", "why"),
        [
            ("UPDATE records SET mac = zeroblob(32) WHERE purpose = 'chain'", "chain key of {v2} 2026-11 was altered"),
            ("UPDATE records SET month = '2026-12' WHERE purpose = 'chain'", "chain key of {v2} 2026-12 was altered"),
            (
                "DELETE FROM records WHERE month = '2026-09'",
                "record:message:{v2}:2026-09 is not there, but the log has",
            ),
            ("DELETE FROM records WHERE month = '00000001'", "entry 2: log key 1 is not in the vault"),
            ("DELETE FROM sealed WHERE purpose = 'v1-secret'", "sealed:v1-secret:{v1} is not there, but the log has"),
            ("UPDATE sealed SET body = zeroblob(9) WHERE purpose = 'v1-secret'", "v1-secret row of {v1} was altered"),
            ("UPDATE sealed SET lookup = zeroblob(32) WHERE purpose = 'patient'", "patient row of {v1} was altered"),
        ],
    )
    def test_check_names_the_row(self, practice: Practice, statement: str, why: str) -> None:
        file = tamper(practice.file(), statement)
        done = practice.run("check", file=file)
        assert done.code == 5
        assert f"{why.format(v1=practice.v1.hex(), v2=practice.v2.hex())}" in done.err
        assert done.out.endswith("not everything opens\n")
        text = practice.built.message(practice.v2, "2026-10", "hola")
        if "patient" not in statement:
            assert practice.run("read", file=file, text=text).out.endswith(" ==\nhola\n")

    def test_an_older_copy_of_a_row(self, practice: Practice) -> None:
        """Its MAC is right, for it was true once."""
        ref = f"record:message:{practice.v2.hex()}:2026-10"
        old = practice.built.wrapped[ref]
        key = practice.built.key(practice.v2, "2026-10")
        practice.built.record("message", practice.v2, "2026-10", key)
        practice.built.told("month.open", {"writes": [ref]}, practice.praxis)
        practice.built.wrapped[ref] = old
        done = practice.run("check")
        assert done.code == 5
        assert f"row {ref} is of entry 5, but the log has it of entry 10\n" in done.err

    def test_rows_that_no_honest_program_writes_with_the_keys(self, practice: Practice) -> None:
        built, keyset = practice.built, practice.built.keyset
        ref = f"record:message:{practice.v2.hex()}:2026-10"
        mac = keyset._record_mac("message", practice.v2, "2026-10", 5, bytes(40))
        built.wrapped[ref] = built.wrapped[ref]._replace(wrapped=bytes(40), mac=mac)
        ref = f"sealed:patient:{practice.v1.hex()}"
        value = keyset.open(built.values[ref])
        built.values[ref] = keyset.seal("patient", practice.v1, 4, value, lookup=keyset.lookup("another"))
        built.told("audit.show", {}, practice.praxis, token="reserve")
        built.told("audit.show", {}, practice.praxis, time="2026-11-01T00:00:00Z")
        said = practice.run("check").err
        for why in (
            f"the message key of {practice.v2.hex()} 2026-10 does not unwrap",
            f"the patient row of {practice.v1.hex()} is found by another patient's id",
            "entry 10 names another token than signed it",
            "entry 11 has a time before an earlier one's",
        ):
            assert f"error: {why}\n" in said

    def test_a_hold_is_opened(self, practice: Practice) -> None:
        name = os.urandom(8)
        row = practice.built.keyset.seal("hold", name, 10, {"month": "", "patient": "x", "reasons": [], "since": ""})
        hold = {"nonce": row.nonce.hex(), "sealed": row.body.hex(), "sequence": 10}
        practice.built.set_trust("hold", name.hex(), hold)
        practice.sign_anew()
        assert "holds: 1\n" in practice.run("check").out
        practice.built.set_trust("hold", name.hex(), hold | {"sequence": 9})
        practice.sign_anew()
        assert f"the hold row of {name.hex()} was altered" in practice.run("check").err

    def test_patients_go_on_behind_a_row_that_does_not_open(self, practice: Practice) -> None:
        where = f"purpose = 'patient' AND pairing = x'{practice.v1.hex()}'"
        done = practice.run("patients", file=tamper(practice.file(), f"UPDATE sealed SET sequence = 1 WHERE {where}"))
        assert done.code == 5
        assert f"the patient row of {practice.v1.hex()} was altered" in done.err
        assert V2_PATIENT in done.out
