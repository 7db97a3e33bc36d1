"""The log cut, edited, rolled back; keys introduced, and re-keys told of, by nobody who may."""

from __future__ import annotations

from medcrypt_hsm.errors import AuditBroken, VaultForeign, VaultRolledBack
from medcrypt_hsm.tokens.access import open_token
from tests.adversary.attacks.attack import FILE, OLD_FILE, OLDER, OTHER_VAULT, REMOVED, Attack, whole_file
from tests.adversary.attacks.hand import Hand, clear, rekeyed, restore, sealed
from tests.support.practice import pin
from tests.support.store import whole


def cut_below_the_anchor(hand: Hand) -> None:
    hand.sql(f"DELETE FROM entries WHERE sequence >= {hand.scene.anchor}")


def cut_in_the_middle(hand: Hand, at: int = 1) -> None:
    first = hand.scene.anchor + at
    hand.sql(
        f"DELETE FROM entries WHERE sequence = {first}",
        f"UPDATE entries SET sequence = -sequence WHERE sequence > {first}",
        "UPDATE entries SET sequence = -sequence - 1 WHERE sequence < 0",
    )


def swap(hand: Hand) -> None:
    one, other = hand.rows("entries")[-2:]
    hand.put("entries", (one[0], *other[1:]), (other[0], *one[1:]))


def edit(hand: Hand, *, follow: bool) -> None:
    row = hand.rows("entries")[-2]
    hand.put("entries", (row[0], row[1][:-1] + bytes([row[1][-1] ^ 1]), *row[2:]))
    if follow:
        hand.rehash(row[0])


def sign_again(hand: Hand, *, claims: str) -> None:
    newest = hand.rows("entries")[-1]
    hand.sql(f"DELETE FROM entries WHERE sequence = {newest[0]}")
    hand.append_by_evil(newest[1], claims=claims)


def log_of_another_vault(hand: Hand) -> None:
    hand.scene.files["other"] = hand.scene.other.path
    hand.replace_table("entries", "other")


def rolled_back_but_for_the_newest_head(hand: Hand) -> None:
    newest = hand.rows("entries")[-1]
    whole(hand.scene.files["held once"], hand.path)
    hand.put("entries", newest)


def another_vault_under_this_ones_id(hand: Hand) -> None:
    whole(hand.scene.other.path, hand.path)
    hand.change_trust("vault", "", id=hand.scene.vault_id.hex())


def restore_in_the_doctors_name(hand: Hand, by: str) -> None:
    """An older file, and an entry that says that the doctor restored it."""
    abandoned = hand.rows("entries")[hand.scene.anchor - 1]
    whole(hand.scene.files["before"], hand.path)
    stored = restore(abandoned[0], abandoned[2], "doctor")
    if by == "lost":
        with open_token(hand.scene.uris["lost"], pin) as token:
            name = f"medcrypt audit {hand.scene.vault_id.hex()}"
            hand.append(stored, hand.scene.ids["doctor"], lambda data: token.sign(name, data))
        hand.append_by("lost", sealed(1))
    else:
        hand.append_by_evil(stored, claims="doctor")


LOG = (
    Attack("the log's end cut off", FILE, cut_below_the_anchor, VaultRolledBack, OLD_FILE, everywhere=True),
    Attack("its middle cut out and renumbered", FILE, cut_in_the_middle, AuditBroken, "was altered"),
    Attack("an entry missing", FILE,
           lambda hand: hand.sql(f"DELETE FROM entries WHERE sequence = {hand.scene.anchor + 1}"),
           AuditBroken, "is missing"),
    Attack("two entries swapped", FILE, swap, AuditBroken, "was altered"),
    Attack("an entry edited", FILE, lambda hand: edit(hand, follow=False), AuditBroken, "was altered"),
    Attack("an entry edited, and every hash behind it made to follow", FILE, lambda hand: edit(hand, follow=True),
           AuditBroken, "does not verify", everywhere=True),
    Attack("the newest head signed by somebody in the doctor's name", FILE,
           lambda hand: sign_again(hand, claims="doctor"), AuditBroken, "does not verify"),
    Attack("the newest head signed by somebody in their own name", FILE, lambda hand: sign_again(hand, claims=""),
           AuditBroken, "unknown key"),
    Attack("the log of another vault of the same token", OTHER_VAULT, log_of_another_vault, VaultRolledBack,
           "older than|departs"),
    Attack("the whole file of another vault of the same token, under this one's id", OTHER_VAULT,
           another_vault_under_this_ones_id, VaultRolledBack, "holds? .*(audit key|anchor)"),
    Attack("a head of a sequence that lies ahead", FILE,
           lambda hand: hand.append_by_evil(sealed(), claims="doctor", ahead=5), AuditBroken, "is missing"),
    Attack("a head of the year 2099", FILE,
           lambda hand: hand.append_by_evil(clear("vault.restore", {}, "doctor", time="2099-12-31T23:59:59Z"),
                                            claims="doctor"), AuditBroken, "does not verify"),
    Attack("the file of before the anchor", OLDER, whole_file("held once"), VaultRolledBack, OLD_FILE,
           everywhere=True),
    Attack("the file of before the re-key", OLDER, whole_file("before"), VaultRolledBack, OLD_FILE),
    Attack("an older file with the newest head", OLDER, rolled_back_but_for_the_newest_head, VaultRolledBack,
           "departs"),
    Attack("an older file, and that the doctor restored it", OLDER,
           lambda hand: restore_in_the_doctors_name(hand, "evil"), AuditBroken, "does not verify"),
)  # fmt: skip


# Introductions and re-keys


def by_evil(hand: Hand, *entries: bytes, claims: str = "doctor", head: bool = True) -> None:
    """In the doctor's name; and a head behind it that is right, if the key is believed."""
    hand.append_by_evil(*entries, claims=claims)
    if head:
        hand.append_by_evil(sealed())


def introduced_by_the_removed_token(hand: Hand) -> None:
    hand.append_by("lost", hand.introduction("lost"))
    hand.append_by_evil(sealed())


def continued_by_the_removed_token(hand: Hand) -> None:
    """Everything that it takes to make a vault one's own: a new token, a re-key that retires the doctor's."""
    evil = hand.introduction("lost")
    doctor = sorted([hand.scene.ids["doctor"].hex(), hand.scene.ids["spare"].hex()])
    hand.append_by("lost", evil)
    hand.append_by("lost", clear("vault.rekey", {"generation": 4, "reason": "remove-token"}, "lost", "intended"))
    hand.append_by("lost", clear("vault.rekey", rekeyed(4, retired=doctor), "lost"))
    hand.append_by_evil(sealed(4))


def old_file_continued_by_the_removed_token(hand: Hand) -> None:
    whole(hand.scene.files["before"], hand.path)
    hand.append_by("lost", *(sealed(1) for _ in range(60)))


SHRED = {"generation": 4, "reason": "shred"}
INTENDED = clear("vault.rekey", SHRED, "doctor", "intended")

CHAIN = (
    Attack("a token introduced by nobody", FILE, lambda hand: by_evil(hand, hand.introduction("doctor")), AuditBroken,
           "does not verify", everywhere=True),
    Attack("a token that introduces itself", FILE, lambda hand: by_evil(hand, hand.introduction("evil"), claims=""),
           AuditBroken, "unknown key"),
    Attack("a token introduced by the removed one", REMOVED,
           introduced_by_the_removed_token, AuditBroken, "unknown key"),
    Attack("a re-key that nobody intended or did", FILE,
           lambda hand: by_evil(hand, INTENDED, clear("vault.rekey", rekeyed(4), "doctor"), head=False), AuditBroken,
           "does not verify"),
    Attack("a re-key undone by nobody", FILE,
           lambda hand: by_evil(hand, clear("vault.rekey", {"generation": 4}, "doctor", "undone"), head=False),
           AuditBroken, "does not verify"),
    Attack("a token retired by nobody", FILE, lambda hand: by_evil(
        hand, INTENDED, clear("vault.rekey", rekeyed(4, retired=[hand.scene.ids["spare"].hex()]), "doctor")),
        AuditBroken, "does not verify"),
    Attack("a head by the removed token", REMOVED, lambda hand: hand.append_by("lost", sealed()), AuditBroken,
           "unknown key", everywhere=True),
    Attack("a re-key by the removed token", REMOVED,
           lambda hand: hand.append_by("lost", clear("vault.rekey", SHRED, "lost", "intended")),
           AuditBroken, "unknown key"),
    Attack("a whole continuation by the removed token", REMOVED, continued_by_the_removed_token, AuditBroken,
           "unknown key", everywhere=True),
    Attack("an old file that the removed token went on with", REMOVED, old_file_continued_by_the_removed_token,
           VaultRolledBack, "departs", everywhere=True),
    Attack("an old file of which the removed token says that the doctor restored it", REMOVED,
           lambda hand: restore_in_the_doctors_name(hand, "lost"), AuditBroken, "does not verify"),
    Attack("an old file from which the removed token removed the doctor's", REMOVED, whole_file("usurped"),
           VaultForeign, "token doctor was removed from this vault", everywhere=True),
    Attack("the same, shown to the spare token", REMOVED, whole_file("usurped"), VaultRolledBack, "departs",
           token="spare"),
    Attack("what the sleeping token did to an old file, shown to the doctor's", OLDER, whole_file("forked"),
           VaultRolledBack, "departs"),
    Attack("what the sleeping token did to an old file, shown to the spare one", OLDER, whole_file("forked"),
           VaultRolledBack, "departs", token="spare"),
    Attack("the present file, shown to the token that slept and saw another", OLDER, lambda hand: None, VaultRolledBack,
           OLD_FILE, token="sleeper"),
)  # fmt: skip
