"""Custodians, escrow and uses of break-glass, as the trust state has them and as the log tells of them.

``make``: a scene after two ceremonies, a use that the second one answered, and one that is not answered yet.
Carla's token was away at the second ceremony: her old share is on record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.errors import AuditBroken, PinNeeded, VaultDamaged, VaultRolledBack
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.notation import ctx, u64
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from tests.adversary.attacks.attack import FILE, OLD_FILE, OLDER, TOKEN, Attack, trusted, whole_file
from tests.adversary.attacks.hand import Hand, clear, rekeyed, sealed
from tests.adversary.attacks.on_trust import NO_ANCHOR, anchors
from tests.adversary.attacks.scene import Scene
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import Practice, pin, unlocked
from tests.support.rogue import Rogue
from tests.support.softhsm import SoftHsm
from tests.support.store import whole

CEREMONIES = ("first ceremony", "first use", "second ceremony", "second use")


def make(directory: Path, softhsm: SoftHsm) -> Scene:
    uris = {name: softhsm.make_token() for name in ("doctor", "spare", *CUSTODIANS, "dora")}
    practice = Practice(directory / "practice" / "vault.db", uris["doctor"])
    made = Scene(practice, uris, practice)
    circle = Circle(practice, uris, directory / "homes")
    practice.clock.set("2026-10-20")
    with practice.create() as vault:
        made.vault_id = unlocked(vault).state.vault_id
    practice.add("spare", uris["spare"], using="doctor")
    practice.clock.set("2026-11-20")
    with practice.open(token="doctor") as vault:
        practice.pair(vault, "EXP-1")
        practice.pair(vault, "EXP-4")
        vault.holds.add("case 4711", patient="EXP-4")
        (made.texts["EXP-1 2026-11"],) = vault.encrypt("EXP-1", "el resultado es positivo")
        made.ids = {token.name: token.id for token in vault.status().tokens}
    for number, name in enumerate(CEREMONIES, 1):
        made.keep(name)  # as it is before
        with practice.open(token="doctor") as vault:
            if name == "first ceremony":
                vault.custodians.ceremony({w: uris[w] for w in CUSTODIANS}, 2, lambda _: pin, OtherTokens(pin))
            elif name == "second ceremony":
                vault.custodians.rotate(without_carlas(uris), OtherTokens(pin), instead={"carla": uris["dora"]})
        if "use" in name:
            rogue = Rogue.asks(circle, practice.path)
            rogue = rogue.approved_by("ana", "berta").opens()
            rogue.append(rogue.close())
        with practice.open(token="doctor") as vault:
            vault.encrypt("EXP-1", f"número {number}")
        practice.clock.forward(hours=1)
    with practice.open(token="doctor") as vault:
        vault.log.anchor()
        anchor = vault.status().anchor
        assert anchor is not None
        made.anchor = anchor
        for text in ("uno", "dos", "tres"):
            vault.encrypt("EXP-1", text)
        state = unlocked(vault).state
        assert [bool(use.answered) for use in sorted(state.uses, key=lambda use: use.entry)] == [True, False]
        assert [share.name for share in state.old_shares] == ["carla"]
    whole(practice.path, practice.path.with_name("folded")).replace(practice.path)
    return made


def without_carlas(uris: dict[str, str]) -> Callable[[str], PinPrompt]:
    """She kept her old token, and its PIN."""

    def pin_of(name: str) -> PinPrompt:
        def prompt(info: TokenInfo) -> str:
            if f"token={info.label}?" in uris["carla"]:
                raise PinNeeded("Carla is away", "")
            return pin(info)

        return prompt

    return pin_of


def row_of(hand: Hand, kind: str, *, answered: bool | None = None) -> str:
    """The name of the only such row."""
    (name,) = [
        row[1]
        for row in hand.rows("trust")
        if row[0] == kind and (answered is None or bool(json.loads(row[2])["answered"]) == answered)
    ]
    return str(name)


def key_exchanged(hand: Hand) -> None:
    """For the attacker's own, with the keyset that it is to open."""
    hand.change_trust("breakglass", "", key=xwing.public_key(os.urandom(32)).hex())


def escrow_planted(hand: Hand) -> None:
    """Anybody can seal to the true break-glass key: custodians would open it without suspecting anything."""
    escrow = hand.trust("escrow", "")
    key = bytes.fromhex(hand.trust("breakglass", "")["key"])
    info = ctx("medcrypt/escrow", hand.scene.vault_id, u64(escrow["generation"]), bytes.fromhex(escrow["ceremony"]))
    hand.change_trust("escrow", "", sealed=xwing.seal(key, info, os.urandom(96)).hex())


def swapped(hand: Hand) -> None:
    ana, berta = (hand.trust("custodian", who) for who in ("ana", "berta"))
    hand.put_trust("custodian", "ana", berta | {"x": ana["x"]})
    hand.put_trust("custodian", "berta", ana | {"x": berta["x"]})


def renamed(hand: Hand) -> None:
    row = hand.trust("custodian", "ana")
    hand.delete_trust("custodian", "ana")
    hand.put_trust("custodian", "eva", row)


def fewer(hand: Hand) -> None:
    hand.delete_trust("custodian", "carla")


def all_forgotten(hand: Hand) -> None:
    hand.sql("DELETE FROM trust WHERE kind IN ('breakglass', 'custodian', 'escrow')")


def as_before(hand: Hand) -> None:
    """Every row of the ceremony before, whose shares may be with other people by now."""
    all_forgotten(hand)
    for row in hand.rows("trust", "second ceremony"):
        if row[0] in ("breakglass", "custodian", "escrow"):
            hand.put("trust", row)


def old_already(hand: Hand) -> None:
    """That Ana's present share is an old one: a sync with her token would destroy it."""
    row = hand.trust("custodian", "ana")
    kept = {name: row[name] for name in ("approval_key", "label", "model", "serial", "uri")}
    ceremony = hand.trust("breakglass", "")["ceremony"]
    hand.put_trust("oldshare", f"{ceremony}:ana", kept | {"entry": 3, "since": "2026-11-20T12:00:00Z"})


def recovery_begun(hand: Hand) -> None:
    value = {"answered": "", "entry": hand.scene.anchor, "phase": "open", "scope": "practice"}
    hand.put_trust("use", os.urandom(32).hex(), value | {"since": "2026-11-20T12:00:00Z"})


ROWS = (
    trusted("the break-glass key exchanged", key_exchanged, everywhere=True),
    trusted("an escrow planted, sealed to the true key", escrow_planted, everywhere=True),
    trusted("the escrow of the ceremony before", lambda hand: hand.put_trust(
        "escrow", "", hand.trust("escrow", "", "second ceremony")), OLDER),
    trusted("the escrow of another generation", lambda hand: hand.change_trust("escrow", "", generation=2)),
    trusted("a custodian's approval key exchanged",
            lambda hand: hand.change_trust("custodian", "ana", approval_key=hand.evil.spki.hex()), everywhere=True),
    trusted("a custodian's commitment exchanged",
            lambda hand: hand.change_trust("custodian", "ana", commitment=os.urandom(32).hex())),
    trusted("a custodian's token exchanged", lambda hand: hand.change_trust("custodian", "ana", uri="pkcs11:token=x")),
    trusted("a custodian drilled", lambda hand: hand.change_trust("custodian", "ana", drilled="2026-11-20T12:00:00Z")),
    trusted("two custodians swapped", swapped),
    trusted("a custodian called otherwise", renamed),
    trusted("a custodian fewer", fewer),
    trusted("the threshold", lambda hand: hand.change_trust("breakglass", "", threshold=3)),
    trusted("whose log the ceremony was held in",
            lambda hand: hand.change_trust("breakglass", "", audit_key=hand.evil.id.hex())),
    trusted("all of it forgotten", all_forgotten),
    trusted("the ceremony before", as_before, OLDER, everywhere=True),
    trusted("a use forgotten", lambda hand: hand.delete_trust("use", row_of(hand, "use", answered=False)),
            everywhere=True),
    trusted("an answered use forgotten", lambda hand: hand.delete_trust("use", row_of(hand, "use", answered=True))),
    trusted("a use answered", lambda hand: hand.change_trust(
        "use", row_of(hand, "use", answered=False), answered="2026-11-20T16:00:00Z")),
    trusted("a recovery begun", recovery_begun),
    trusted("an old share forgotten", lambda hand: hand.delete_trust("oldshare", row_of(hand, "oldshare"))),
    trusted("an old share on another token", lambda hand: hand.change_trust(
        "oldshare", row_of(hand, "oldshare"), approval_key=hand.evil.spki.hex())),
    trusted("a present share told to be old, to have it destroyed", old_already, everywhere=True),
    Attack("the escrow taken away", FILE, lambda hand: hand.delete_trust("escrow", ""), VaultDamaged,
           "trust state cannot be read"),
    Attack("the custodians taken away", FILE, lambda hand: hand.sql("DELETE FROM trust WHERE kind = 'custodian'"),
           VaultDamaged, "trust state cannot be read"),
    Attack("a use of another form", FILE, lambda hand: hand.change_trust(
        "use", row_of(hand, "use", answered=True), phase="opened"), VaultDamaged, "trust state cannot be read"),
)  # fmt: skip


# Older files. In: the name of a ceremony or use that they are from before.


def rolled_back_without_an_anchor(hand: Hand, name: str) -> None:
    whole(hand.scene.files[name], hand.path)
    anchors(hand)


def use_cut_out(hand: Hand) -> None:
    """The guest's entries, and every hash after them made to follow."""
    first = next(row[0] for row in hand.rows("entries") if b'"action":"breakglass.open"' in row[1])
    hand.sql(f"DELETE FROM entries WHERE sequence IN ({first}, {first + 1}, {first + 2})",
             f"UPDATE entries SET sequence = -sequence WHERE sequence > {first}",
             "UPDATE entries SET sequence = -sequence - 3 WHERE sequence < 0")  # fmt: skip
    hand.rehash(first)


OLDER_FILES = tuple(
    Attack(f"the file of before the {name}{also}", holds, do, VaultRolledBack, words)
    for name in CEREMONIES
    for also, holds, do, words in (
        ("", OLDER, whole_file(name), OLD_FILE),
        (", and no anchor", TOKEN, lambda hand, name=name: rolled_back_without_an_anchor(hand, name), NO_ANCHOR),
    )
)


# Entries


def opening_of(hand: Hand) -> bytes:
    return next(bytes(row[1]) for row in hand.rows("entries") if b'"action":"breakglass.open"' in row[1])


def custody(hand: Hand) -> dict[str, object]:
    glass, names = hand.trust("breakglass", ""), {row[1] for row in hand.rows("trust") if row[0] == "custodian"}
    told = [{**hand.trust("custodian", name), "name": name} for name in names]
    told = [{key: row[key] for key in row if key not in ("drilled", "label", "uri")} for row in told]
    told.sort(key=lambda row: row["x"])
    return {"ceremony": os.urandom(6).hex(), "custodians": told, "key": os.urandom(32).hex(),
            "threshold": glass["threshold"]}  # fmt: skip


def ceremony_of_nobodys(hand: Hand) -> None:
    generation = hand.trust("vault", "")["generation"] + 1
    hand.append_by_evil(clear("vault.rekey", {"generation": generation, "reason": "rotate"}, "doctor", "intended"),
                        clear("vault.rekey", rekeyed(generation) | {"custody": custody(hand)}, "doctor"),
                        claims="doctor")  # fmt: skip


def closed_by_nobody(hand: Hand) -> None:
    hand.append_by_evil(clear("breakglass.close", {"request": os.urandom(32).hex()}, "bg-00000000"))


WITHOUT_RIGHT = "opens the vault without right"

ENTRIES = (
    Attack("a use cut out of the log", FILE, use_cut_out, VaultRolledBack, "departs"),
    Attack("the opening of a use once more", FILE, lambda hand: hand.append_by_evil(opening_of(hand)), AuditBroken,
           WITHOUT_RIGHT, everywhere=True),
    Attack("the same in the doctor's name", FILE, lambda hand: hand.append_by_evil(opening_of(hand), claims="doctor"),
           AuditBroken, WITHOUT_RIGHT),
    Attack("an opening without approvals", FILE, lambda hand: hand.append_by_evil(clear("breakglass.open", {
        "approvals": [], "request": json.loads(opening_of(hand)[1:])["detail"]["request"]}, "bg-00000000")),
        AuditBroken, WITHOUT_RIGHT),
    Attack("an opening of nothing", FILE, lambda hand: hand.append_by_evil(clear("breakglass.open", {}, "doctor")),
           AuditBroken, f"{WITHOUT_RIGHT}|tells of no request"),
    Attack("a ceremony that nobody held", FILE, ceremony_of_nobodys, AuditBroken, "does not verify", everywhere=True),
    Attack("a recovery of nobody's", FILE, lambda hand: hand.append_by_evil(
        clear("vault.rekey", {"generation": 4, "reason": "recover"}, "doctor", "intended"), claims="doctor"),
        AuditBroken, "does not verify"),
    Attack("the close of no use", FILE, closed_by_nobody, AuditBroken, "unknown key"),
    Attack("a reading by a guest whose use is over", FILE, lambda hand: hand.append_by_evil(sealed()), AuditBroken,
           "unknown key"),
)  # fmt: skip

BREAKGLASS = (*ROWS, *OLDER_FILES, *ENTRIES)
