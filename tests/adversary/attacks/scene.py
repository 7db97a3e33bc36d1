"""One practice with a past, made once for each profile; every attack gets a copy of its file.

Tokens of the vault: ``doctor`` and ``spare``, both of today; ``sleeper``, which lay in a safe and has seen another
history in the meantime; ``lost``, which was removed while it was away, still has its PIN and its old keys, and has been
used on an old copy. ``other`` is another practice's vault on the doctor's token. Plain code without pytest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import anchor_name
from tests.support.practice import Practice, pin, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import rows, whole

EVERYBODY = OtherTokens(pin)
WITHOUT_THE_SLEEPER = OtherTokens(pin, without=("sleeper",))
SEPTEMBER, OCTOBER = Month.parse("2026-09"), Month.parse("2026-10")
PLAINTEXT = "el resultado es positivo"

Objects = dict[str, tuple[bytes, ...]]


@dataclass
class Scene:
    """Files, all of one vault but ``other``: the present one in ``practice.path``, older ones by name in ``files``.

    ``texts``: a wire text of each patient and month. ``anchor``: the entry that the doctor's token remembers; the file
    goes on behind it.
    """

    practice: Practice
    uris: dict[str, str]
    other: Practice
    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    vault_id: bytes = b""
    ids: dict[str, bytes] = field(default_factory=dict)
    anchor: int = 0
    pairings: dict[str, bytes] = field(default_factory=dict)

    def keep(self, name: str) -> None:
        self.files[name] = whole(self.practice.path, self.practice.path.with_name(f"{name}.db"))

    def objects(self, of: str = "doctor") -> Objects:
        """What a token holds, and the values of its anchors."""
        with open_token(self.uris[of], pin) as opened:
            return {name: tuple(sorted(opened.read_objects(name))) for name in sorted(opened.names())}

    def put_anchors(self, values: tuple[bytes, ...], of: str = "doctor") -> None:
        """These anchors of this vault and no others."""
        name = anchor_name(self.vault_id)
        with open_token(self.uris[of], pin) as opened:
            if any(opened.read_objects(name)):
                opened.destroy(name)
            for value in values:
                opened.put_object(name, value)

    def anchors(self, of: str = "doctor", vault_id: bytes = b"") -> tuple[bytes, ...]:
        with open_token(self.uris[of], pin) as opened:
            return tuple(value for value in opened.read_objects(anchor_name(vault_id or self.vault_id)) if value)

    @contextmanager
    def anchors_put_back(self) -> Iterator[None]:
        before = self.anchors()
        try:
            yield
        finally:
            if self.anchors() != before:
                self.put_anchors(before)


def make(directory: Path, softhsm: SoftHsm, profile: str) -> Scene:
    uris = {name: softhsm.make_token() for name in ("doctor", "spare", "sleeper", "lost")}
    wish = TokenOptions(profile)
    practice = Practice(directory / "practice" / "vault.db", uris["doctor"])
    other = Practice(directory / "other" / "vault.db", uris["doctor"], practice.clock)
    made = Scene(practice, uris, other)

    practice.clock.set("2026-09-20")
    other.create(options=wish).close()
    with practice.create(options=wish) as vault:
        made.vault_id = unlocked(vault).state.vault_id
    for name in ("spare", "sleeper", "lost"):
        practice.add(name, uris[name], using="doctor", options=wish)
    with practice.open(token="doctor") as vault:
        for patient in ("EXP-1", "EXP-2"):
            practice.pair(vault, patient)
            made.pairings[patient] = vault.patients.show(patient)[-1].pairing
    for month in ("2026-09", "2026-10", "2026-11"):
        practice.clock.set(f"{month}-20")
        with practice.open(token="doctor") as vault:
            for patient in ("EXP-1", "EXP-2"):
                (text,) = vault.encrypt(patient, f"{PLAINTEXT}: {patient} {month}")
                made.texts[f"{patient} {month}"] = text
    with practice.open(token="doctor") as vault:
        vault.decrypt(made.texts["EXP-1 2026-11"])
        for patient in ("EXP-3", "EXP-4"):  # held, with keys of this month alone: the older ones can be shredded
            practice.pair(vault, patient)
        vault.holds.add("an inspection", patient="EXP-3")
        made.ids = {token.name: token.id for token in vault.status().tokens}
        vault.backup(directory / "practice" / "backup.db")
    made.keep("before")  # no token was removed, nothing is shredded yet

    with practice.open(token="doctor") as vault:
        vault.tokens.remove("lost", OtherTokens(pin, without=("lost", "sleeper")))
        vault.holds.add("case 4711", patient="EXP-4")
    made.keep("held once")
    with practice.open(token="doctor") as vault:
        vault.holds.add("case 4712", patient="EXP-4")
        vault.set_policy(retain_months=120)
        vault.months.shred([SEPTEMBER], WITHOUT_THE_SLEEPER)
        vault.log.anchor()
    made.keep("anchored")
    with practice.open(token="doctor") as vault:
        anchor = vault.status().anchor
        assert anchor is not None
        made.anchor = anchor
        for text in ("uno", "dos", "tres"):
            vault.encrypt("EXP-1", text)
    whole(practice.path, practice.path.with_name("folded"))
    practice.path.with_name("folded").replace(practice.path)

    # What the others did meanwhile, each on a copy of the old file and with a token of its own.
    for name, file in (("lost", "usurped"), ("sleeper", "forked")):
        path = Path(shutil.copy(made.files["before"], directory / f"{file}.db"))
        aside = Practice(path, uris[name], practice.clock)
        with aside.open(token=name) as vault:
            for number in range(40):
                vault.log.anchor() if number == 0 else unlocked(vault).record("test")
            if name == "lost":
                vault.tokens.remove("doctor", OtherTokens(pin, without=("doctor", "spare", "sleeper")))
            vault.log.anchor()
        made.files[file] = whole(path, path.with_name(f"{file}-whole.db"))
    assert rows(made.files["usurped"], "entries")[-1][0] > rows(practice.path, "entries")[-1][0]
    return made
