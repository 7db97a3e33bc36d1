"""What the file holds after a re-key that the log tells rightly of (docs/spec/rekey.md): both readers refuse it.

One fault each, and for each what package and script say of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.two_readers import KEK, OCTOBER, PAIRING, SEPTEMBER, Rekeyed, judge, keyset, retired_row
from tests.support.vault_builder import SoftToken

# name: fault, what the package says of it, what the script says
REFUSED: dict[str, tuple[Callable[[Rekeyed], object], str, str]] = {
    # Generation, tokens and months
    "a newer log key without a re-key": (
        lambda log: log.signed("vault", "", log.vault_row(log_key=2)), "not the newest", "another generation or log key"
    ),
    "a newer keyset without a re-key": (
        lambda log: log.signed("vault", "", log.vault_row(generation=2)), "not the newest", "another generation"
    ),
    "an older keyset behind a re-key": (
        lambda log: log.both().signed("vault", "", log.vault_row(generation=1)), "not the newest", "another generation"
    ),
    "another on record": (lambda log: log.reserve_kek(kek=KEK), "on record otherwise", "another kek"),
    "another grade on record": (
        lambda log: log.reserve_kek(attestation="device-attested"), "on record otherwise", "another attestation"
    ),
    "a better grade on record, without a word": (
        lambda log: log.both().changed("token", "reserve", attestation="device-attested"),
        "on record otherwise", "another attestation",
    ),
    "a month that is not on record": (
        lambda log: log.committed(shredded=["2026-08"]), "shredded months on record", "has no trust row"
    ),
    "a row says shredded and the log does not": (
        lambda log: log.changed("month", OCTOBER, shredded=log.now()), "shredded months on record", "not as the log"
    ),
    "the log says shredded and the row does not": (
        lambda log: log.committed(shredded=[OCTOBER]), "shredded months on record", "not as the log"
    ),
    "shredded at another time": (
        lambda log: log.both(shred=(OCTOBER,)).changed("month", OCTOBER, shredded="2026-11-02T00:00:00Z"),
        "shredded months on record", "not as the log",
    ),
    "shredded at no time": (
        lambda log: log.both(shred=(OCTOBER,)).changed("month", OCTOBER, shredded="long ago"),
        "not as the spec has it", "not a UTC time",
    ),
    "shredded, in truth": (
        lambda log: log.changed("month", OCTOBER, shredded=False), "not as the spec has it", "not text"
    ),
    "a month's row of before": (
        lambda log: log.signed("month", OCTOBER, {"opened": log.now()}), "cannot be read", "other members"
    ),
    "still among the tokens": (
        lambda log: (log.retired(), log.add_token_row(log.reserve), log.sealed(log.doctor)),
        "tokens on record are not those", "introduced no such token",
    ),
    "moved back": (
        lambda log: (log.retired(), log.add_token_row(log.reserve), log.without("retired", "reserve")),
        "tokens on record are not those", "introduced no such token",
    ),
    "not on record as retired": (
        lambda log: log.retired().without("retired", "reserve"), "removed tokens on record", "has no trust row"
    ),
    "on record as retired without a word": (
        lambda log: (
            log.both(),
            log.set_trust("retired", "reserve", retired_row(log, log.reserve)),
            log.without("token", "reserve"),
        ),
        "tokens on record are not those", "retired no such token",
    ),
    "retired by the log alone": (
        lambda log: log.committed(retired=[log.reserve.id.hex()]),
        "tokens on record are not those", "introduced no such token",
    ),
    "retired by another entry": (
        lambda log: log.retired().changed("retired", "reserve", entry=4), "removed tokens on record", "retired it"
    ),
    "retired at another time": (
        lambda log: log.retired().changed("retired", "reserve", since="2026-11-01T00:00:00Z"),
        "removed tokens on record", "retired it",
    ),
    "retired of another model": (
        lambda log: log.retired().changed("retired", "reserve", model="hard"), "otherwise", "another model"
    ),
    "retired of another profile": (
        lambda log: log.retired().changed("retired", "reserve", profile="p256-hpke"), "otherwise", "another profile"
    ),
    "retired of another serial": (
        lambda log: log.retired().changed("retired", "reserve", serial="2"), "otherwise", "another serial"
    ),
    "retired with another key": (
        lambda log: log.retired().changed("retired", "reserve", audit_key=SoftToken("x").spki.hex()),
        "cannot be read", "another audit_key",
    ),
    "retired under another name": (
        lambda log: (
            log.retired(),
            log.set_trust("retired", "rescue", json.loads(log.trust["retired", "reserve"])),
            log.without("retired", "reserve"),
        ),
        "removed tokens on record", "retired no such token",
    ),
    "retired, nowhere": (
        lambda log: log.retired().changed("retired", "reserve", was="lost"), "cannot be read", "'was' is 'lost'"
    ),
    "retired by a truth": (
        lambda log: log.retired().changed("retired", "reserve", entry=True), "not as the spec", "not a number"
    ),
    "retired and more": (
        lambda log: log.retired().changed("retired", "reserve", kek=""), "not as the spec", "other members"
    ),
    # Keysets
    "of the generation before": (
        lambda log: log.both().signed("keyset", "1:reserve", keyset(log, log.reserve)),
        "not under the newest", "not the newest",
    ),
    "of a generation to come": (
        lambda log: log.signed("keyset", "2:reserve", keyset(log, log.reserve)),
        "not under the newest", "not the newest",
    ),
    "under the KEK before": (
        lambda log: log.both().changed("keyset", "2:reserve", kek=1), "not under the newest", "not the newest"
    ),
    "under a KEK that was away": (
        lambda log: log.away().changed("keyset", "2:reserve", kek=2), "not under the newest", "not the newest"
    ),
    "under a KEK that was synced": (
        lambda log: (
            log.away(),
            log.sync(keks={"reserve": log.kek(kek=KEK)}),
            log.changed("keyset", "2:reserve", kek=1),
        ),
        "not under the newest", "not the newest",
    ),
    "under a truth": (lambda log: log.changed("keyset", "1:reserve", kek=True), "not as the spec", "not a number"),
    "of a retired token's": (
        lambda log: log.retired().signed("keyset", "2:reserve", keyset(log, log.reserve)),
        "no token of that name", "no token of that name",
    ),
    "written another way": (
        lambda log: log.signed("keyset", "01:reserve", keyset(log, log.reserve)),
        "not under the newest", "not the newest",
    ),
    "a keyset without a KEK": (
        lambda log: log.signed("keyset", "1:reserve", {"token": log.reserve.id.hex(), "wrapped": "00"}),
        "cannot be read", "other members",
    ),
    # Old KEKs
    "doomed of an unknown token": (
        lambda log: log.both().doom(SoftToken("third")), "no token of that name", "no token of that name"
    ),
    "doomed of another token": (
        lambda log: log.both().doom(log.reserve, token=log.doctor.id.hex()),
        "no token of that name", "no token of that name",
    ),
    "doomed too high": (lambda log: log.both().doom(log.reserve, 3), "no re-key that made", "not older than"),
    "doomed though newest": (lambda log: log.both().doom(log.reserve, 2), "no re-key that made", "not older than"),
    "doomed of generation 0": (lambda log: log.both().doom(log.reserve, 0), "no re-key that made", "names no re-key"),
    "doomed by no re-key": (
        lambda log: log.both().doom(log.reserve, entry=4), "no re-key that made", "names no re-key"
    ),
    "doomed at another time": (
        lambda log: log.both().doom(log.reserve, since="2026-11-01T00:00:00Z"), "no re-key that made", "names no re-key"
    ),
    "doomed written another way": (
        lambda log: log.both().signed(
            "doomed", "01:reserve", {"entry": 5, "since": log.rows[4].time, "token": log.reserve.id.hex()}
        ),
        "cannot be read", "names no re-key",
    ),
    "doomed of more": (lambda log: log.both().doom(log.reserve, more=""), "not as the spec", "other members"),
    "doomed by a truth": (lambda log: log.both().doom(log.reserve, entry=True), "not as the spec", "not a number"),
    # What is under way
    "under way for no known reason": (lambda log: log.begun(reason="tidiness"), "no known reason", "'reason' is"),
    "in no known phase": (lambda log: log.begun(phase="over"), "cannot be read", "'phase' is"),
    "begun at no time": (lambda log: log.begun(begun=""), "not as the spec", "not a UTC time"),
    "of a negative generation": (lambda log: log.begun(generation=-1), "not as the spec", "not a number"),
    "of an entry that is a truth": (lambda log: log.begun(entry=True), "not as the spec", "not a number"),
    "of more than that": (lambda log: log.begun(more=""), "not as the spec", "other members"),
    "a second one under way": (
        lambda log: log.signed("rekey", "other", json.loads(log.begun().trust["rekey", ""])),
        "cannot be read", "may not exist",
    ),
    # Holds
    "a hold by another name": (lambda log: log.hold("EXP-1"), "not as the spec", "not a hold"),
    "a hold in upper case": (lambda log: log.hold("0123456789ABCDEF"), "not as the spec", "not a hold"),
    "a hold in other digits": (lambda log: log.hold("٠123456789abcdef"), "not as the spec", "not a hold"),
    "a hold with a short nonce": (lambda log: log.hold(nonce="00" * 11), "not as the spec", "right length"),
    "a hold without a tag": (lambda log: log.hold(sealed="00" * 15), "not as the spec", "not a hold"),
    "a hold in upper-case hex": (lambda log: log.hold(sealed="AB" * 40), "not as the spec", "lower-case hex"),
    "a hold of an entry to come": (lambda log: log.hold(sequence=99), "does not have", "does not have"),
    "a hold of entry 0": (lambda log: log.hold(sequence=0), "does not have", "does not have"),
    "a hold of a truth": (lambda log: log.hold(sequence=True), "not as the spec", "not a number"),
    "a hold that says for whom": (lambda log: log.hold(patient="EXP-1"), "not as the spec", "other members"),
    # Rows that should be gone
    "a key of a shredded month": (
        lambda log: (log.both(shred=(OCTOBER,)), log.records.append(("message", bytes(8), OCTOBER, 2))),
        "rows of 2026-10", "rows of 2026-10",
    ),
    "a text seen of a shredded month": (
        lambda log: (log.both(shred=(OCTOBER,)), log.seen.append((bytes(8), OCTOBER))),
        "rows of 2026-10", "rows of 2026-10",
    ),
    "a key of an erased pairing": (
        lambda log: (
            log.both(erase=(PAIRING,)), log.records.append(("message", bytes.fromhex(PAIRING), SEPTEMBER, 2))
        ),
        f"rows of pairing {PAIRING}", f"rows of {PAIRING}",
    ),
    "a text seen of an erased pairing": (
        lambda log: (log.both(erase=(PAIRING,)), log.seen.append((bytes.fromhex(PAIRING), SEPTEMBER))),
        f"rows of pairing {PAIRING}", f"rows of {PAIRING}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_both(what: str, tmp_path: Path) -> None:
    log = Rekeyed().begin()
    fault, package_says, script_says = REFUSED[what]
    fault(log)
    package, script = judge(log, tmp_path)
    assert package_says in package
    assert script_says in script
