"""The package and scripts/standalone/verify_audit.py are two readers of one spec: each log here is accepted or refused
by both.

Read with public keys alone; what only the sealed entries tell is at the end. Re-keying: test_rekey.py.
"""

from __future__ import annotations

from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.lifecycle import enroll
from medcrypt_hsm.tokens.attestation import grades
from medcrypt_hsm.vault.audit import entries
from scripts.standalone import verify_audit
from tests.support.practice import Practice, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.two_readers import (
    ABANDONED,
    HPKE,
    KEK,
    OTHER_KEK,
    Log,
    compressed,
    judge,
    keyset,
    p384,
    row_of,
    with_key,
)
from tests.support.vault_builder import SoftToken

VAULT = {"created": "2026-11-01T09:00:00Z", "generation": 1, "log_key": 1}
POLICY: dict[str, object] = {"grace_days": 7, "require_attestation": "none", "retain_months": 60}
ADDING = {"begun": "2026-11-09T09:00:00Z", "serial": "1", "uri": "pkcs11:"}

ACCEPTED: dict[str, Callable[[Log], object]] = {
    "one token": lambda log: None,
    "two tokens": lambda log: log.two().sealed(log.reserve),
    "a p256-hpke KEK": lambda log: log.two(**HPKE),
    "another grade": lambda log: log.two(attestation="device-attested").third(),
    "a trust state that is not there any more": lambda log: log.trusting(bytes(32)).sealed(log.doctor),
    "a restore": lambda log: log.two().restore(log.reserve),
    "a restore of nothing": lambda log: log.two().restore(log.reserve, ABANDONED | {"abandoned_sequence": 0}),
    "a restore that tells more": lambda log: log.restore(log.doctor, ABANDONED | {"more": [1, None, True]}),
    "at the same time as before": lambda log: log.two().restore(log.doctor, time="2026-11-03T09:00:00Z"),
    "a keyset": lambda log: log.two().row("keyset", "1:reserve", keyset(log, log.reserve)),
    "an adding": lambda log: log.row("adding", "third", ADDING),
    "the largest numbers": lambda log: log.row("policy", "", POLICY | {"retain_months": (1 << 63) - 1}),
    "a name with more than ASCII": lambda log: log.introduce(SoftToken("Praxis Ä"), log.doctor),
}

REFUSED: dict[str, Callable[[Log], object]] = {
    # Who signed, and in whose name
    "a restore in another's name": lambda log: log.two().restore(log.reserve, token="doctor"),
    "a restore in nobody's name": lambda log: log.two().restore(log.reserve, token="nobody"),
    "an introduction in another's name": lambda log: log.two().third(token="reserve"),
    "an introduction in its own name": lambda log: log.two().third(token="third"),
    "introduced by itself": lambda log: log.introduce(log.reserve, log.reserve),
    "used before it was introduced": lambda log: (log.sealed(log.reserve), log.two()),
    # What is in the clear
    "a restore that is only intended": lambda log: log.restore(log.doctor, outcome="intended"),
    "an introduction that is only intended": lambda log: (
        log.two().third(outcome="intended"),
        log.trust.pop(("token", "third")),
        log.sealed(log.doctor),
    ),
    "another action in the clear": lambda log: log.clear("message.decrypt", {}, log.doctor),
    "a member more": lambda log: log.restore(log.doctor, more=1),
    "an actor that is no text": lambda log: log.restore(log.doctor, actor=7),
    "a detail that is no object": lambda log: log.restore(log.doctor, []),
    "a fraction": lambda log: log.restore(log.doctor, ABANDONED | {"more": 1.5}),
    "not a number": lambda log: log.restore(log.doctor, ABANDONED | {"more": float("nan")}),
    "a space in the JSON": lambda log: log.clear_bytes(lambda stored: stored.replace(b":", b": ", 1)),
    "a member twice": lambda log: log.clear_bytes(lambda stored: stored[:-1] + b',"token":"doctor"}'),
    "half a character": lambda log: log.clear_bytes(lambda stored: stored.replace(b"mara", b"\\ud800")),
    "another kind of entry": lambda log: log.append(b"\x02" + bytes(60), log.doctor),
    # Times
    "a time before": lambda log: log.two().restore(log.doctor, time="2026-01-01T00:00:00Z"),
    "no time": lambda log: log.restore(log.doctor, time="yesterday"),
    "a time in another form": lambda log: log.restore(log.doctor, time="2026-12-3T9:00:00Z"),
    "a day that is none": lambda log: log.restore(log.doctor, time="2026-11-31T09:00:00Z"),
    "a time in other digits": lambda log: log.restore(log.doctor, time="2026-12-0٣T09:00:00Z"),
    # Restores
    "a restore of less than nothing": lambda log: log.restore(log.doctor, ABANDONED | {"abandoned_sequence": -5}),
    "a restore of too much": lambda log: log.restore(log.doctor, ABANDONED | {"abandoned_sequence": 1 << 63}),
    "a restore of a truth": lambda log: log.restore(log.doctor, ABANDONED | {"abandoned_sequence": True}),
    "a restore without a number": lambda log: log.restore(log.doctor, {"abandoned_hash": "ab" * 32}),
    "a restore of another hash": lambda log: log.restore(log.doctor, ABANDONED | {"abandoned_hash": "zz" * 32}),
    "a restore of a short hash": lambda log: log.restore(log.doctor, ABANDONED | {"abandoned_hash": "ab" * 31}),
    "a restore of an upper-case hash": lambda log: log.restore(log.doctor, ABANDONED | {"abandoned_hash": "AB" * 32}),
    "a restore of a number as hash": lambda log: log.restore(log.doctor, ABANDONED | {"abandoned_hash": int("1" * 64)}),
    # Introductions
    "p256-hpke without a KEK": lambda log: log.two(profile="p256-hpke"),
    "p256-hpke with a KEK that is none": lambda log: log.two(profile="p256-hpke", kek="00" * 91),
    "p256-hpke with a compressed KEK": lambda log: log.two(**HPKE | {"kek": compressed(log.doctor).spki.hex()}),
    "aes-kw with a KEK": lambda log: log.two(kek=KEK),
    "a KEK that is no text": lambda log: log.two(kek=None),
    "an unknown profile": lambda log: log.two(profile="rot13"),
    "an unknown grade": lambda log: log.two(attestation="excellent"),
    "a serial that is a number": lambda log: log.two(serial=1),
    "a name that is a number": lambda log: log.two(name=7),
    "an upper-case key": lambda log: log.two(audit_key=log.reserve.spki.hex().upper()),
    "an upper-case KEK": lambda log: log.two(**HPKE | {"kek": KEK.upper()}),
    "an upper-case id": lambda log: log.two(id=log.reserve.id.hex().upper()),
    "a key with a space": lambda log: log.two(audit_key=log.reserve.spki.hex() + " "),
    "an id of another key": lambda log: log.two(id=log.doctor.id.hex()),
    "a compressed key": lambda log: log.introduce(compressed(log.reserve), log.doctor),
    "one key as two tokens": lambda log: log.two().introduce(compressed(log.reserve), log.doctor),
    "a key with bytes behind it": lambda log: log.introduce(with_key(log.reserve.spki + b"\0"), log.doctor),
    "a P-384 key": lambda log: log.introduce(with_key(p384()), log.doctor),
    "a key that is none": lambda log: log.introduce(with_key(b"garbage"), log.doctor),
    "a name introduced twice": lambda log: log.two().introduce(SoftToken("reserve"), log.doctor),
    "a token introduced under a new name": lambda log: (
        log.two(),
        log.trust.pop(("token", "reserve")),
        log.introduce(with_key(log.reserve.spki), log.doctor),
    ),
    "a key introduced twice": lambda log: log.two().introduce(with_key(log.reserve.spki), log.doctor),
    "a key that is a number": lambda log: log.introduce(log.reserve, log.doctor, audit_key=7),
    # Sealed entries
    "with a long trust digest": lambda log: log.trusting(bytes(33)).sealed(log.doctor),
    "under a log key to come": lambda log: log.sealed(log.doctor, log_key=9),
    "under log key 0": lambda log: log.sealed(log.doctor, log_key=0),
    "cut short": lambda log: log.append(b"\1\0\0\0\1" + bytes(27), log.doctor),
    # A token's row and its introduction
    "another KEK on record": lambda log: log.two(**HPKE).reserve_row(**HPKE | {"kek": OTHER_KEK}),
    "another profile on record": lambda log: log.two().reserve_row(**HPKE),
    "a better grade on record": lambda log: log.two(attestation="not-attested").reserve_row(
        attestation="device-attested"
    ),
    "an unknown grade on record": lambda log: log.two().reserve_row(attestation="excellent"),
    "another serial on record": lambda log: log.two().reserve_row(serial="2"),
    "another model on record": lambda log: log.two().reserve_row(model="hard"),
    "another key on record": lambda log: log.two().row("token", "reserve", row_of(log, SoftToken("reserve"))),
    "another name on record": lambda log: log.two().row("token", "rescue", row_of(log, log.reserve)),
    "an upper-case id on record": lambda log: log.two().reserve_row(id=log.reserve.id.hex().upper()),
    "not on record": lambda log: (log.two(), log.trust.pop(("token", "reserve")), log.sealed(log.doctor)),
    "not introduced": lambda log: log.reserve_row(),
    # The form of the trust state
    "a row in other bytes": lambda log: log.raw("policy", "", lambda value: value.replace(b":", b": ", 1)),
    "a policy of more": lambda log: log.row("policy", "", POLICY | {"more": "text"}),
    "a policy of less": lambda log: log.row("policy", "", {"grace_days": 7, "retain_months": 60}),
    "a policy in text": lambda log: log.row("policy", "", POLICY | {"grace_days": "7"}),
    "a policy of truths": lambda log: log.row("policy", "", POLICY | {"grace_days": True}),
    "a negative policy": lambda log: log.row("policy", "", POLICY | {"grace_days": -1}),
    "too large a number": lambda log: log.row("policy", "", POLICY | {"retain_months": 1 << 63}),
    "an infinite number": lambda log: log.raw("policy", "", lambda value: value.replace(b"60", b"1e999")),
    "no policy": lambda log: (log.trust.pop(("policy", "")), log.sealed(log.doctor)),
    "a second policy": lambda log: log.row("policy", "other", POLICY),
    "no month": lambda log: (log.trust.pop(("month", "2026-11")), log.sealed(log.doctor)),
    "a month that is none": lambda log: log.row("month", "2026-13", {"opened": log.now(), "shredded": ""}),
    "a month opened at no time": lambda log: log.row("month", "2026-12", {"opened": "", "shredded": ""}),
    "a vault made at no time": lambda log: log.row("vault", "", VAULT | {"id": log.vault.hex(), "created": ""}),
    "no log key": lambda log: log.row("vault", "", VAULT | {"id": log.vault.hex(), "log_key": 0}),
    "an upper-case vault id": lambda log: log.row("vault", "", VAULT | {"id": log.vault.hex().upper()}),
    "a row of another kind": lambda log: log.row("escrow", "EXP-1", {}),
    "a token's row of more": lambda log: log.two().reserve_row(more="text"),
    "half a character on record": lambda log: log.two().raw(
        "token", "reserve", lambda value: value.replace(b"Praxis", b"\\ud800")
    ),
    "an adding of more": lambda log: log.row("adding", "third", ADDING | {"more": "text"}),
    "an adding begun at no time": lambda log: log.row("adding", "third", ADDING | {"begun": ""}),
    "a keyset for another token": lambda log: log.two().row("keyset", "1:reserve", keyset(log, log.doctor)),
    "a keyset for nobody": lambda log: log.row("keyset", "1:nobody", keyset(log, SoftToken("nobody"))),
    "a keyset of nothing": lambda log: log.row("keyset", "1:doctor", keyset(log, log.doctor, wrapped="")),
    "a keyset that is no hex": lambda log: log.row("keyset", "1:doctor", keyset(log, log.doctor, wrapped="0 0")),
    # Rows beside the log
    "a record of an entry to come": lambda log: log.records.append(("message", bytes(8), "2026-11", 99)),
    "a record of entry 0": lambda log: log.records.append(("message", bytes(8), "2026-11", 0)),
}


# Of a log of two tokens and six entries, of which the last is a restore.
CONTINUED: dict[str, Callable[[Log], bytes]] = {
    "the newest head": lambda log: log.checkpoint(log.doctor),
    "an older one": lambda log: log.checkpoint(log.doctor, log.rows[1]),
    "of the introduction": lambda log: log.checkpoint(log.doctor, log.rows[2]),
    "by the other token": lambda log: log.checkpoint(log.reserve, log.rows[3]),
    "a sealed entry's with a time that nobody can see": lambda log: log.checkpoint(
        log.doctor, log.rows[1], time="2020-01-01T00:00:00Z"
    ),
}

NOT_CONTINUED: dict[str, Callable[[Log], bytes]] = {
    "by a stranger": lambda log: log.checkpoint(SoftToken("doctor")),
    "of another vault": lambda log: Log().begin().checkpoint(log.doctor),
    "ahead": lambda log: log.checkpoint(log.doctor, sequence=7),
    "far ahead": lambda log: log.checkpoint(log.doctor, sequence=(1 << 63) - 1),
    "farther ahead": lambda log: log.checkpoint(log.doctor, sequence=1 << 63),
    "of another entry's hash": lambda log: log.checkpoint(log.doctor, log.rows[3], sequence=5),
    "with another trust digest": lambda log: log.checkpoint(log.doctor, trust="A" * 43 + "="),
    "a clear entry's with another time": lambda log: log.checkpoint(log.doctor, time="2020-01-01T00:00:00Z"),
    "entry 0": lambda log: log.checkpoint(log.doctor, sequence=0),
    "a number with a zero before it": lambda log: log.checkpoint(log.doctor, sequence="06"),
    "no time": lambda log: log.checkpoint(log.doctor, time="2026-11-31T09:00:00Z"),
    "an altered time": lambda log: log.checkpoint(log.doctor, log.rows[1]).replace(b"2026", b"2027"),
    "no signature": lambda log: log.checkpoint(log.doctor).partition(b"\n\n")[0],
    "two signatures": lambda log: log.checkpoint(log.doctor) + log.checkpoint(log.reserve).partition(b"\n\n")[2],
    "two notes": lambda log: log.checkpoint(log.doctor) * 2,
    "lines that end otherwise": lambda log: log.checkpoint(log.doctor).replace(b"\n", b"\r\n"),
    "a signature with a byte behind it": lambda log: signed_otherwise(log, lambda der: der + b"\0"),
    "a signature of a longer form": lambda log: signed_otherwise(log, lambda der: b"\x30\x81" + der[1:]),
    "a signature with a zero more": lambda log: signed_otherwise(log, with_zero),
    "a signature of zeros": lambda log: signed_otherwise(log, lambda der: encode_dss_signature(0, 0)),
    "no signature behind the key id": lambda log: signed_otherwise(log, lambda der: b""),
    "a longer hash": lambda log: log.checkpoint(log.doctor, hash=b64encode(log.rows[-1].hash + b"\0").decode()),
    "a hash in base64url": lambda log: log.checkpoint(log.doctor, hash=urlsafe_b64encode(b"\xff" * 32).decode()),
}


def signed_otherwise(log: Log, change: Callable[[bytes], bytes]) -> bytes:
    """A true checkpoint with the bytes of its signature in another form."""
    head, _, signed = log.checkpoint(log.doctor).rstrip(b"\n").rpartition(b" ")
    raw = b64decode(signed)
    return head + b" " + b64encode(raw[:4] + change(raw[4:])) + b"\n"


def with_zero(der: bytes) -> bytes:
    """r with one more leading zero than DER has."""
    length = der[3]
    r = bytes([2, length + 1, 0]) + der[4 : 4 + length]
    return bytes([0x30, der[1] + 1]) + r + der[4 + length :]


@pytest.mark.parametrize("what", ACCEPTED)
def test_accepted_by_both(what: str, tmp_path: Path) -> None:
    log = Log().begin()
    ACCEPTED[what](log)
    assert judge(log, tmp_path) == ("", "")


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_both(what: str, tmp_path: Path) -> None:
    log = Log().begin()
    REFUSED[what](log)
    package, script = judge(log, tmp_path)
    assert package
    assert script.startswith("NOT VERIFIED: ")


@pytest.fixture(scope="module")
def six() -> Log:
    log = Log().begin().two()
    log.sealed(log.reserve)
    log.sealed(log.doctor)
    log.restore(log.doctor)
    return log


@pytest.mark.parametrize("what", CONTINUED)
def test_a_checkpoint_that_both_find_continued(six: Log, what: str, tmp_path: Path) -> None:
    assert judge(six, tmp_path, CONTINUED[what](six)) == ("", "")


@pytest.mark.parametrize("what", NOT_CONTINUED)
def test_a_checkpoint_that_both_refuse(six: Log, what: str, tmp_path: Path) -> None:
    package, script = judge(six, tmp_path, NOT_CONTINUED[what](six))
    assert package
    assert script.startswith("NOT VERIFIED: ")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_as_a_checkpoint(six: Log, tmp_path: Path, data: st.DataObject) -> None:
    """A true one, or one that was signed with other values, with up to three changes: one judgement."""
    changes = {
        "sequence": st.integers(-1, 8), "time": st.just("2026-11-06T09:00:00Z"), "hash": st.sampled_from(["", "AAAA"])
    }  # fmt: skip
    changed = data.draw(st.fixed_dictionaries({}, optional=changes))
    note = bytearray(six.checkpoint(six.doctor, six.rows[data.draw(st.integers(0, 5))], **changed))
    for _ in range(data.draw(st.integers(0, 3))):
        at, length = data.draw(st.integers(0, 400)) % (len(note) + 1), data.draw(st.integers(0, 3))
        note[at : at + length] = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\n", b"=", b"A"])))
    package, script = judge(six, tmp_path, bytes(note))
    assert bool(package) == bool(script), (bytes(note), package, script)


def test_they_know_the_same_profiles_and_grades() -> None:
    assert entries.PROFILES == verify_audit.PROFILES == enroll.PROFILES
    assert entries.GRADES == verify_audit.GRADES == grades.GRADES


class TestWithTheToken:
    """What is sealed is read by the package alone, with a token."""

    @pytest.fixture
    def two(self, practice: Practice, spare_uri: str) -> Practice:
        practice.add("spare", spare_uri)
        return practice

    def test_a_sealed_entry_in_another_tokens_name(self, two: Practice) -> None:
        with two.open(token="spare") as vault:
            spare = unlocked(vault)
            spare.registered = spare.registered._replace(name="doctor")
            spare.record("patient.remove", "EXP-1")
        with two.open(token="doctor") as vault, pytest.raises(AuditBroken, match="names token 'doctor', but 'spare'"):
            vault.log.verify()

    def test_an_honest_log_of_both(self, two: Practice) -> None:
        for name in ("doctor", "spare"):
            with two.open(token=name) as vault:
                vault.log.entries()
                assert vault.log.verify().keys == ("doctor", "spare")


@pytest.fixture(scope="module")
def spare_uri(softhsm: SoftHsm, token_uri: str) -> str:
    return softhsm.make_token()
