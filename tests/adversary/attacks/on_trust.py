"""Rows of the trust state, the token's anchor, and the log key: what else an unlock looks at."""

from __future__ import annotations

import os

import pkcs11

from medcrypt_hsm.errors import AuditBroken, VaultDamaged, VaultRolledBack
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import anchor_name
from tests.adversary.attacks.attack import FILE, OLD_FILE, OLDER, TOKEN, Attack, trusted
from tests.adversary.attacks.hand import Hand
from tests.adversary.attacks.scene import SEPTEMBER
from tests.support.practice import pin
from tests.support.store import whole
from tests.support.vault_builder import SoftToken, canonical, ctx


def removed_token_registered_again(hand: Hand) -> None:
    hand.put_trust("token", "lost", hand.trust("token", "lost", "before"))
    hand.delete_trust("retired", "lost")


def removed_token_back_by_its_retired_row(hand: Hand) -> None:
    hand.put_trust("token", "lost", hand.trust("retired", "lost") | {"kek": "", "touch": "never", "attestation": "x"})
    hand.delete_trust("retired", "lost")


def a_hold(hand: Hand, change: str) -> None:
    one, other = [row for row in hand.rows("trust") if row[0] == "hold"]
    if change == "taken away":
        hand.delete_trust("hold", one[1])
    elif change == "swapped":
        hand.put("trust", (one[0], one[1], other[2]), (other[0], other[1], one[2]))
    else:
        older = {row[1]: row for row in hand.rows("trust", "held once") if row[0] == "hold"}
        (changed,) = [row for row in older.values() if row not in hand.rows("trust")][:1]
        hand.put("trust", changed)


def older_keyset(hand: Hand, *, generation: bool) -> None:
    hand.put_trust("keyset", "1:doctor", hand.trust("keyset", "1:doctor", "before"))
    if generation:
        hand.change_trust("vault", "", generation=1)


def rekey_row(hand: Hand, phase: str, generation: int, reason: str = "shred") -> None:
    entry = hand.scene.anchor
    value = {"begun": "2026-11-20T12:00:00Z", "entry": entry, "generation": generation, "phase": phase}
    hand.put_trust("rekey", "", value | {"reason": reason})


def doomed_row(hand: Hand, kek: int, name: str = "doctor") -> None:
    token = hand.scene.ids[name].hex()
    hand.put_trust("doomed", f"{kek}:{name}", {"entry": 2, "since": "2026-11-20T12:00:00Z", "token": token})


TRUST = (
    trusted("the removed token registered again", removed_token_registered_again, OLDER, everywhere=True),
    trusted("the removed token's row moved back from retired", removed_token_back_by_its_retired_row),
    trusted("that a token was removed unseen, forgotten",
            lambda hand: hand.change_trust("retired", "lost", was="present")),
    trusted("a hold taken away", lambda hand: a_hold(hand, "taken away"), everywhere=True),
    trusted("two holds swapped", lambda hand: a_hold(hand, "swapped")),
    trusted("a hold as it was before, with fewer reasons", lambda hand: a_hold(hand, "older"), OLDER),
    trusted("a shredded month un-shredded",
            lambda hand: hand.put_trust("month", str(SEPTEMBER), hand.trust("month", str(SEPTEMBER), "before")), OLDER,
            everywhere=True),
    trusted("a month opened that is still to come",
            lambda hand: hand.put_trust("month", "2026-12", {"opened": "2026-12-01T00:00:00Z", "shredded": ""})),
    trusted("the older, looser policy put back",
            lambda hand: hand.put_trust("policy", "", hand.trust("policy", "", "before")), OLDER),
    trusted("retention made a month", lambda hand: hand.change_trust("policy", "", retain_months=1)),
    trusted("the older keyset beside the newest", lambda hand: older_keyset(hand, generation=False), OLDER),
    trusted("the older keyset in its stead", lambda hand: older_keyset(hand, generation=True), OLDER),
    trusted("the number of the root key that wraps the keyset",
            lambda hand: hand.change_trust("keyset", "3:doctor", kek=1)),
    trusted("the keyset of another token", lambda hand: hand.put_trust(
        "keyset", "3:doctor", hand.trust("keyset", "3:spare") | {"token": hand.scene.ids["doctor"].hex()})),
    trusted("that a re-key to the present keyset was intended, to have its root key destroyed",
            lambda hand: rekey_row(hand, "intended", 3), everywhere=True),
    trusted("that a sync to it was intended", lambda hand: rekey_row(hand, "intended", 3, "sync")),
    trusted("that a re-key was committed, to have backups deleted and keys destroyed",
            lambda hand: rekey_row(hand, "committed", 3)),
    trusted("the root key in use on the list of old ones", lambda hand: doomed_row(hand, 3), everywhere=True),
    trusted("the spare's root key in use on the list of old ones", lambda hand: doomed_row(hand, 3, "spare")),
    trusted("an old root key taken off the list",
            lambda hand: hand.sql("DELETE FROM trust WHERE kind = 'doomed' AND name = '1:lost'")),
    Attack("the doctor's audit key exchanged", FILE,
           lambda hand: hand.change_trust("token", "doctor", audit_key=hand.evil.spki.hex(), id=hand.evil.id.hex()),
           VaultRolledBack, "does not hold the audit key"),
    Attack("a trust row of an unknown kind", FILE, lambda hand: hand.put_trust("vault\0", "", {}), VaultDamaged,
           "trust state cannot be read"),
    Attack("a number with ten thousand digits", FILE,
           lambda hand: hand.put("trust", ("policy", "", b'{"grace_days":' + b"9" * 10_000 + b"}")), VaultDamaged,
           "trust state cannot be read"),
    Attack("not a number", FILE,
           lambda hand: hand.put("trust", ("policy", "", canonical(hand.trust("policy", "")).replace(b":7", b":NaN"))),
           VaultDamaged, "trust state cannot be read"),
    Attack("JSON as deep as it goes", FILE, lambda hand: hand.put("trust", ("policy", "", b"[" * 200_000)),
           VaultDamaged, "trust state cannot be read"),
)  # fmt: skip


# The anchor


def anchors(hand: Hand, *values: bytes) -> None:
    hand.scene.put_anchors(values)


def forged_anchor(hand: Hand) -> bytes:
    (value,) = hand.scene.anchors()
    data = value[4 : 4 + int.from_bytes(value[:4], "big")]
    return value[:4] + data + SoftToken("x").sign(ctx("medcrypt/anchor", data))


def rolled_back_without_an_anchor(hand: Hand) -> None:
    whole(hand.scene.files["before"], hand.path)
    anchors(hand)


def anchor_of_the_other_vault(hand: Hand) -> None:
    hand.scene.files["other"] = hand.scene.other.path
    vault_id = bytes.fromhex(hand.trust("vault", "", "other")["id"])
    anchors(hand, *hand.scene.anchors(vault_id=vault_id))


def older_anchor_beside(hand: Hand) -> None:
    whole(hand.scene.files["held once"], hand.path)
    put_beside(hand, hand.scene.anchors("spare"))


def put_beside(hand: Hand, values: tuple[bytes, ...]) -> None:
    """Without destroying what is there."""
    name = anchor_name(hand.scene.vault_id)
    with open_token(hand.scene.uris["doctor"], pin) as token:
        session = token._session  # type: ignore[attr-defined]
        for value in values:
            session.create_object({
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA, pkcs11.Attribute.LABEL: name,
                pkcs11.Attribute.APPLICATION: "medcrypt", pkcs11.Attribute.PRIVATE: True, pkcs11.Attribute.TOKEN: True,
                pkcs11.Attribute.VALUE: value,
            })  # fmt: skip


NO_ANCHOR = "holds no anchor that this file's record of it can verify"

ANCHOR = (
    Attack("the anchor deleted", TOKEN, anchors, VaultRolledBack, NO_ANCHOR, everywhere=True),
    Attack("the anchor deleted, and the file rolled back", TOKEN, rolled_back_without_an_anchor, VaultRolledBack,
           NO_ANCHOR),
    Attack("the anchor of another token of this vault", TOKEN,
           lambda hand: anchors(hand, *hand.scene.anchors("spare")), VaultRolledBack, NO_ANCHOR),
    Attack("the anchor of another vault on this token", TOKEN, anchor_of_the_other_vault, VaultRolledBack, NO_ANCHOR),
    Attack("an anchor by somebody's own key", TOKEN, lambda hand: anchors(hand, forged_anchor(hand)), VaultRolledBack,
           NO_ANCHOR),
    Attack("rubbish as the anchor", TOKEN, lambda hand: anchors(hand, os.urandom(300)), VaultRolledBack, NO_ANCHOR),
    Attack("an older anchor beside the newer", TOKEN, older_anchor_beside, VaultRolledBack, OLD_FILE),
)  # fmt: skip


# The log key: the one wrapped key that an unlock needs


def newest_log_key(hand: Hand, change: str) -> None:
    log = [row for row in hand.rows("records") if row[0] == "log"]
    newest = log[-1]
    if change == "altered":
        hand.put("records", (*newest[:4], newest[4][:-1] + bytes([newest[4][-1] ^ 1]), newest[5]))
    elif change == "older":
        hand.put("records", (*newest[:3], *log[0][3:]))
    else:
        hand.sql("DELETE FROM records WHERE purpose = 'log'")


KEYS = (
    Attack("the newest log key altered", FILE, lambda hand: newest_log_key(hand, "altered"), AuditBroken,
           "log key .* altered"),
    Attack("an older log key in its place", FILE, lambda hand: newest_log_key(hand, "older"), AuditBroken,
           "log key .* altered"),
    Attack("the log keys deleted", FILE, lambda hand: newest_log_key(hand, "deleted"), AuditBroken,
           "log key .* missing"),
)  # fmt: skip
