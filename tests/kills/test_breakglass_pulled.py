"""A YubiKey pulled out of break-glass work: a custodian's, the requester's, or the doctor's own.

Each work runs once to its end to count the APDUs of the YubiKey. Then everything is put back as it was, the key is
pulled at one of them, and put in again: the vault opens and verifies, the custodians on record open the escrow, and the
same command completes. At the end each custodian's token holds what the present ceremony put there and nothing else.
Every APDU with ``scripts/test --full``, some otherwise. The other tokens are SoftHSM2's.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import MedcryptError, TokenError, UsageError
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.provision import initialize
from medcrypt_hsm.tokens.yubikey.connection import card_errors
from medcrypt_hsm.tokens.yubikey.token import YubikeyToken
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.choosing import peek
from tests.kills.test_yubikey_pulled import PIN, PUK, RETIRED
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.checkout import FULL
from tests.support.pcscd import Pcscd
from tests.support.practice import MovedClock, Practice
from tests.support.softhsm import USER_PIN, SoftHsm, see_new_tokens
from tests.support.store import open_at
from tests.support.yubikey import VirtualYubiKey

EVERYBODY = ("doctor", *CUSTODIANS, "dora", "nueva")
HOLDERS = (*CUSTODIANS, "dora")
OLD, NEW = "4.3.5", "5.7.4"  # only the newer can delete a key
KEYS = ("approval", "audit", "kek", "request-kek", "request-sign", "share-kek")  # each in a slot of its own
SCOPES = {"practice": "", "patient": "EXP-1"}


def pin(info: Any) -> str:
    return PIN if info.uri.startswith("yubikey:") else USER_PIN


@dataclass
class Cupboard:
    """SoftHSM2 tokens by whose they are, blank: put back as they were whenever a scene begins."""

    uris: dict[str, str]
    places: list[Path]

    @classmethod
    def make(cls, softhsm: SoftHsm) -> Cupboard:
        before = {*(softhsm.directory / "tokens").iterdir()}
        uris = {name: softhsm.make_token() for name in EVERYBODY}
        return cls(uris, [place for place in (softhsm.directory / "tokens").iterdir() if place not in before])

    def save(self, directory: Path) -> None:
        for place in self.places:
            shutil.copytree(place, directory / place.name)

    def bring_back(self, directory: Path) -> None:
        for place in self.places:
            shutil.rmtree(place)
            shutil.copytree(directory / place.name, place)
        see_new_tokens()


@dataclass
class Scene:
    """A practice and its circle, and the one YubiKey among their tokens, which is ``whose``."""

    directory: Path
    cupboard: Cupboard
    key: VirtualYubiKey
    whose: str
    now: MovedClock = field(default_factory=MovedClock)
    wire: str = ""
    request: bytes = b""
    approvals: tuple[bytes, ...] = ()
    results: list[bytes] = field(default_factory=list)

    @property
    def circle(self) -> Circle:
        uris = {**self.cupboard.uris, self.whose: self.key.uri}
        practice = Practice(self.directory / "practice" / "vault.db", uris["doctor"], self.now, pin)
        return Circle(practice, uris, self.directory / "homes")

    def save(self) -> Scene:
        """Closed: nothing of it changes until it is copied."""
        self.key.stop()
        self.cupboard.save(self.directory / "tokens")
        return self

    def copy(self, directory: Path) -> Scene:
        """Another one of the same past, now in the reader and in the cupboard."""
        shutil.copytree(self.directory, directory)
        self.cupboard.bring_back(directory / "tokens")
        key = VirtualYubiKey(self.key.pcscd, directory / "key", reader=self.key.reader).start()
        return Scene(
            directory,
            self.cupboard,
            key,
            self.whose,
            MovedClock(self.now.now),
            self.wire,
            self.request,
            self.approvals,
        )

    def open(self) -> Vault:
        """With the token that the practice has: the doctor's, until it is recovered."""
        with closing(open_at(self.circle.practice.path)) as file:
            mine = peek(file).tokens
        return self.circle.practice.open(token="doctor" if "doctor" in mine else "nueva")

    def state(self) -> TrustState:
        with self.open() as vault:
            return vault._unlocked.state

    def names(self, who: str) -> list[str]:
        """What is on somebody's token, without the vault's id: ``share-kek <ceremony>``, and so on."""
        with open_token(self.circle.uris[who], pin) as token:
            return sorted(re.sub("medcrypt | [0-9a-f]{32}", "", name) for name in token.names())


Scenes = Callable[[str, str, str], Scene]


@pytest.fixture(scope="module")
def scenes(softhsm: SoftHsm, worker_pcscd: Pcscd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    """``scenes("5.7.4", "berta", "plain")``: a YubiKey, whose it is, and how far they have come. Each made once."""
    worker_pcscd.start(readers=1)
    cupboard = Cupboard.make(softhsm)
    root = tmp_path_factory.mktemp("scenes")
    cupboard.save(root / "blank" / "tokens")
    made: dict[tuple[str, ...], Scene] = {}

    def scene(firmware: str, whose: str, what: str) -> Scene:
        named = firmware, whose, what
        if named not in made:
            made[named] = (first if what == "plain" else further)(root / "-".join(named), *named)
        return made[named]

    def first(directory: Path, firmware: str, whose: str, what: str) -> Scene:
        cupboard.bring_back(root / "blank" / "tokens")
        key = VirtualYubiKey.make(worker_pcscd, directory / "key", serial=12345678, firmware=firmware).start()
        initialize(key.uri, None, PUK, PIN)
        found = Scene(directory, cupboard, key, whose)
        with found.circle.practice.create() as vault:
            vault.patients.add("EXP-1", unconfirmed=True)
            (found.wire,) = vault.encrypt("EXP-1", "noviembre")
        return found.save()

    def further(directory: Path, firmware: str, whose: str, what: str) -> Scene:
        found = scene(firmware, whose, "plain" if what == "circle" else "circle").copy(directory)
        if what == "circle":
            found.circle.ceremony()
        else:
            found.request = found.circle.request(SCOPES[what])
            found.approvals = tuple(found.circle.approve(found.request, who) for who in ("ana", "berta"))
        shutil.rmtree(directory / "tokens")
        return found.save()

    yield scene
    worker_pcscd.stop()


# What is done. Each as a person runs it: once more, if it did not say that it was done


def ceremony(scene: Scene) -> None:
    scene.circle.ceremony()


def rotate(scene: Scene) -> None:
    scene.circle.rotate()


def replacing(gone: str, comes: str) -> Callable[[Scene], None]:
    def replace(scene: Scene) -> None:
        circle = scene.circle
        with circle.practice.open() as vault:
            vault.custodians.replace(gone, comes, circle.uris[comes], circle.pin_of, OtherTokens(pin))

    return replace


def approve(scene: Scene) -> None:
    scene.approvals = scene.approvals[0], scene.circle.approve(scene.request, "berta")


def drill(scene: Scene) -> None:
    scene.results = [scene.circle.drill("berta")]


def request(scene: Scene) -> None:
    scene.request = scene.circle.request("EXP-1")


def decrypt(scene: Scene) -> None:
    (opened,) = scene.circle.decrypt(scene.request, [*scene.approvals], scene.wire)
    if opened.error is not None:
        raise opened.error
    assert opened.text == "noviembre"


def recover(scene: Scene) -> None:
    scene.circle.recover(scene.request, [*scene.approvals])


# What came of it


def nothing_more(scene: Scene) -> None: ...


def approval_counts(scene: Scene) -> None:
    decrypt(scene)


def drill_counts(scene: Scene) -> None:
    assert scene.circle.record(*scene.results) == ["berta"]


def request_counts(scene: Scene) -> None:
    assert scene.names("nueva") == ["request", "request-kek", "request-sign"]
    scene.approvals = tuple(scene.circle.approve(scene.request, who) for who in ("ana", "berta"))
    decrypt(scene)


def nothing_asked(scene: Scene) -> None:
    """A request that was used leaves its token, and is never forgotten."""
    in_order(scene)  # the doctor's token writes behind it
    assert [(use.scope, use.phase) for use in scene.state().uses] == [("patient", "done")]
    assert scene.names("nueva") == []


def recovered(scene: Scene) -> None:
    state = scene.state()
    assert sorted(state.tokens) == ["nueva"]
    assert [(use.scope, use.phase) for use in state.uses] == [("practice", "done")]
    assert scene.names("nueva") == ["anchor", "audit", f"kek {state.generation}"]


@dataclass(frozen=True)
class Work:
    """What is done, whose the YubiKey is, where it begins, at how many APDUs a normal run pulls it.

    ``came``: what must be so in the end. ``once``: how the same command is refused where its first run came so far.
    """

    name: str
    whose: str
    start: str
    act: Callable[[Scene], None]
    came: Callable[[Scene], None] = nothing_more
    most: int = 2
    firmware: str = NEW
    once: type[MedcryptError] | None = None


WORK = (
    Work("ceremony", "berta", "plain", ceremony, once=UsageError, firmware=OLD),
    Work("rotate", "berta", "circle", rotate, most=2, firmware=OLD),
    Work("replace-stays", "berta", "circle", replacing("carla", "dora"), once=UsageError),
    Work("replace-goes", "berta", "circle", replacing("berta", "dora"), most=2, once=UsageError),
    Work("replace-comes", "dora", "circle", replacing("carla", "dora"), once=UsageError),
    Work("approve", "berta", "patient", approve, approval_counts),
    Work("drill", "berta", "circle", drill, drill_counts),
    Work("request", "nueva", "circle", request, request_counts),
    Work("decrypt", "nueva", "patient", decrypt, nothing_asked, once=BreakGlassRefused),
    Work("recover", "nueva", "practice", recover, recovered, once=BreakGlassRefused),
    Work("doctor-ceremony", "doctor", "plain", ceremony, once=UsageError),
    Work("doctor-rotate", "doctor", "circle", rotate, firmware=OLD),
)


def progress(state: TrustState) -> object:
    """What changes when it is done."""
    return None if state.breakglass is None else state.breakglass.ceremony, state.generation, len(state.uses)


def in_order(scene: Scene) -> TrustState:
    """The practice's token opens the vault, all of it verifies, and the custodians on record can open it too."""
    circle = scene.circle
    with scene.open() as vault:
        vault.log.verify()
        glass = vault.custodians.present
        if glass is not None:
            holders = {custodian: circle.uris[custodian] for custodian in glass.custodians}
            assert len(vault.custodians.reconstruct(holders, circle.pin_of, OtherTokens(pin))) == 3
        (message,) = vault.decrypt(scene.wire, archive=True)
        assert message.text == "noviembre"
        return vault._unlocked.state


def cleared(scene: Scene) -> None:
    """Old shares that are somewhere are on record; ``vault sync`` destroys them; then nothing more is anywhere."""
    circle, state = scene.circle, scene.state()
    glass = state.breakglass
    assert glass is not None
    told = {(share.name, share.ceremony.hex()) for share in state.old_shares}
    for who in HOLDERS:
        for name in scene.names(who):
            what, _, ceremony = name.partition(" ")
            assert what != "share-kek" or ceremony == glass.ceremony.hex() or (who, ceremony) in told, (who, name)
    with scene.open() as vault:
        synced = vault.tokens.sync(OtherTokens(pin), {who: circle.uris[who] for who in HOLDERS}, circle.pin_of)
        assert synced.shares_left == ()
        vault.log.verify()
    mine = [f"{what} {glass.ceremony.hex()}" for what in ("approval", "share", "share-kek")]
    for who in HOLDERS:
        assert scene.names(who) == (mine if who in glass.custodians else []), who


def points(apdus: int, most: int) -> range | list[int]:
    """The APDU's number from 1: all of them, or the last and some evenly before it."""
    return range(1, apdus + 1) if FULL or apdus <= most else [apdus * (i + 1) // most for i in range(most)]


CASES = [(work, firmware) for work in WORK for firmware in (OLD, NEW) if FULL or firmware == work.firmware]


@pytest.mark.parametrize(("work", "firmware"), CASES, ids=lambda value: getattr(value, "name", value))
def test_pulled(scenes: Scenes, tmp_path: Path, work: Work, firmware: str) -> None:
    start = scenes(firmware, work.whose, work.start)
    counted = start.copy(tmp_path / "counted")
    before = progress(counted.state())
    counted.now.forward(minutes=1)
    counted.key.log()
    work.act(counted)
    apdus = len(counted.key.log())
    counted.key.stop()
    failures = []
    for number in points(apdus, work.most):
        scene = start.copy(tmp_path / str(number))
        try:
            disturb(scene, work, number, before)
        except (AssertionError, MedcryptError) as exc:
            failures.append(f"before APDU {number} of {apdus}: {exc!r}")
        scene.key.stop()
        shutil.rmtree(scene.directory)
    assert not failures, "\n".join(failures)


def disturb(scene: Scene, work: Work, number: int, before: object) -> None:
    """Pulled, put back, looked at, done again, looked at."""
    tries = scene.key.state.pin.left
    scene.now.forward(minutes=1)
    scene.key.pull_at(number)
    try:
        work.act(scene)
    except TokenError as exc:
        if not exc.hint:
            pytest.fail(f"no hint: {exc}")
    scene.key.insert()
    assert scene.key.state.pin.left == tries
    scene.now.forward(minutes=1)
    done = progress(in_order(scene)) != before
    scene.now.forward(minutes=1)
    try:
        work.act(scene)
    except MedcryptError as exc:
        if not done or work.once is None or not isinstance(exc, work.once):
            raise
    scene.now.forward(minutes=1)
    work.came(scene)
    in_order(scene)
    cleared(scene)
    with open_token(scene.key.uri, pin) as token:
        assert isinstance(token, YubikeyToken)
        mine = [name for name in token.names() if name.split()[1] in KEYS]
        with card_errors(token._card, "counting free slots"):
            assert sum(map(token._contents.is_free, RETIRED)) == len(RETIRED) - len(mine), "slots are lost"
