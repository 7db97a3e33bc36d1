"""A guest who heeds no rule: custodians consented to one patient, and what else the guest writes counts for nothing.

Each row of the table says which reader refuses it first: whoever has public keys alone, or whoever opens the entries,
which are the doctor's next write and ``audit verify``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import anchor_name
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.inspection import verify_file
from tests.adversary.attacks.hand import clear, rekeyed
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import Practice, pin
from tests.support.rogue import Rogue, signed
from tests.support.softhsm import SoftHsm
from tests.support.store import by_hand, open_at, whole
from tests.support.vault_builder import SoftToken

KEYS, TOKEN = "public keys alone", "whoever opens the entries"


@dataclass
class Scene:
    """A practice with two tokens, two patients and three custodians. Files are copies; anchors are put back."""

    circle: Circle
    texts: dict[str, str]
    pairings: dict[str, bytes]
    vault_id: bytes
    keys: tuple[bytes, ...]

    @property
    def practice(self) -> Practice:
        return self.circle.practice

    def copy(self, directory: Path) -> Path:
        directory.mkdir(mode=0o700, exist_ok=True)
        return whole(self.practice.path, directory / "vault.db")

    @contextmanager
    def anchors_put_back(self) -> Iterator[None]:
        name, before = anchor_name(self.vault_id), {}
        for who in ("doctor", "spare"):
            with open_token(self.circle.uris[who], pin) as token:
                before[who] = [value for value in token.read_objects(name) if value]
        try:
            yield
        finally:
            for who, values in before.items():
                with open_token(self.circle.uris[who], pin) as token:
                    token.destroy(name)
                    for value in values:
                        token.put_object(name, value)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, softhsm: SoftHsm) -> Scene:
    uris = {name: softhsm.make_token() for name in ("doctor", "spare", *CUSTODIANS, "nueva")}
    directory = tmp_path_factory.mktemp("scene")
    practice = Practice(directory / "practice" / "vault.db", uris["doctor"])
    practice.clock.set("2026-11-20")
    practice.create().close()
    practice.add("spare", uris["spare"], using="doctor")
    texts, pairings = {}, {}
    with practice.open(token="doctor") as vault:
        for patient in ("EXP-1", "EXP-2"):
            practice.pair(vault, patient)
            (texts[patient],) = vault.encrypt(patient, f"para {patient}")
            pairings[patient] = vault.patients.show(patient)[-1].pairing
    circle = Circle(practice, uris, directory / "homes")
    shares = {name: uris[name] for name in CUSTODIANS}
    with practice.open(token="doctor") as vault:
        vault.custodians.ceremony(shares, 2, lambda name: pin, OtherTokens(pin))
        vault.decrypt(texts["EXP-2"])
        keys = tuple(token.audit_key for token in sorted(vault.status().tokens, key=lambda token: token.name))
    with closing(open_at(practice.path)) as file:
        vault_id = peek(file).vault_id
    return Scene(circle, texts, pairings, vault_id, keys)


@pytest.fixture
def rogue(scene: Scene, tmp_path: Path) -> Iterator[Rogue]:
    with scene.anchors_put_back():
        made = Rogue.asks(scene.circle, scene.copy(tmp_path / "practice"))
        yield made.approved_by("ana", "carla")


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(AuditBroken) as caught:
        call()
    return caught.value.message


def test_a_rogue_who_does_as_an_honest_guest_would_is_believed(scene: Scene, rogue: Rogue) -> None:
    """Otherwise what follows would show nothing."""
    rogue.opens()
    rogue.append(rogue.sealed("message.decrypt", {"messages": []}, outcome="intended"))
    rogue.append(rogue.close())
    verify_file(rogue.path, scene.keys)
    with scene.practice.open(rogue.path, token="doctor") as vault:
        assert vault.encrypt("EXP-1", "sigue")
        vault.log.verify()
        assert all(p.compromised for p in vault.patients.list())


# What a guest may not write. In: a rogue, before its opening.

Smuggle = Callable[[Scene, Rogue], object]


def doctor_of(scene: Scene) -> bytes:
    return fingerprint(scene.keys[0])


@dataclass(frozen=True)
class Smuggling:
    name: str
    do: Smuggle
    by: str = KEYS

    def __str__(self) -> str:
        return self.name


def changed_behind(scene: Scene, rogue: Rogue, claims: str = "") -> None:
    rogue.opens().change_trust(retain_months=1)
    doctor = doctor_of(scene) if claims else None
    rogue.append(rogue.sealed("policy.set", {}, token=claims or rogue.name), claims=doctor)
    if claims:
        rogue.append(rogue.close())


def changed_before(scene: Scene, rogue: Rogue) -> None:
    rogue.change_trust(retain_months=1)
    rogue.append(rogue.sealed("policy.set", {}, token="doctor"), claims=doctor_of(scene))
    rogue.opens()


def changed_by_the_opening(scene: Scene, rogue: Rogue) -> None:
    rogue.change_trust(retain_months=1)
    rogue.opens()


def escrow_exchanged(scene: Scene, rogue: Rogue) -> None:
    rogue.opens().change_trust("escrow", sealed=bytes(1232).hex())
    rogue.append(rogue.close())


def between_two_of_one(scene: Scene, rogue: Rogue) -> None:
    """Behind the doctor's forged entry another guest's opening, whose head is right."""
    other = Rogue.asks(scene.circle, rogue.path).approved_by("ana", "berta")
    rogue.opens().change_trust(retain_months=1)
    rogue.append(rogue.sealed("policy.set", {}, token="doctor"), claims=doctor_of(scene))
    other.opens()


def second_of_one_key(scene: Scene, rogue: Rogue) -> None:
    told = replace(rogue.request.told, expires=rogue.now(hours=30))
    again = replace(rogue, request=signed(told, rogue.key, rogue.request.enclosure)).approved_by("ana", "carla")
    rogue.opens()
    again.append(again.opening())


def asked_behind_a_guests(scene: Scene, rogue: Rogue) -> None:
    """A request that names a guest's entry as the one that it was made at."""
    rogue.opens()
    row = rogue.append(rogue.close())
    with scene.practice.open(rogue.path, token="doctor") as vault:
        vault.encrypt("EXP-1", "de la doctora")
    Rogue.asks(scene.circle, rogue.path, sequence=row.sequence, hash=row.hash).approved_by("ana", "carla").opens()


def behind_the_close(scene: Scene, rogue: Rogue) -> None:
    rogue.opens().append(rogue.close())
    rogue.append(rogue.sealed("message.decrypt", {"messages": []}))


def behind_the_doctors(scene: Scene, rogue: Rogue) -> None:
    rogue.opens()
    with scene.practice.open(rogue.path, token="doctor") as vault:
        vault.encrypt("EXP-1", "de la doctora")
    rogue.append(rogue.sealed("message.decrypt", {"messages": []}))


def opened(scene: Scene, rogue: Rogue, **changed: Any) -> None:
    rogue.append(rogue.opening(**changed))


def opened_for_the_practice(scene: Scene, rogue: Rogue) -> None:
    """With consent to one patient, and a token of its own that is introduced."""
    evil = SoftToken("evil")
    told = {"audit_key": evil.spki.hex(), "id": evil.id.hex(), "serial": "1", "model": "soft", "profile": "aes-kw",
            "kek": "", "attestation": "not-attested", "name": "evil"}  # fmt: skip
    rogue.append(rogue.opening(introduced=told))


def by_another_key(scene: Scene, rogue: Rogue) -> None:
    other = SoftToken("other")
    rogue.append(rogue.opening(), claims=other.id, key=other)


def in_the_clear(action: str, detail: dict[str, Any], outcome: str = "done") -> Smuggle:
    def do(scene: Scene, rogue: Rogue) -> None:
        rogue.opens().append(clear(action, detail, rogue.name, outcome, rogue.now()))

    return do


def wrote(action: str, detail: Callable[[Scene, Rogue], dict[str, Any]], **changed: Any) -> Smuggle:
    def do(scene: Scene, rogue: Rogue) -> None:
        times = {name: rogue.now(hours=value) for name, value in changed.items() if name == "time"}
        rogue.opens().append(rogue.sealed(action, detail(scene, rogue), **(changed | times)))

    return do


def read_of(patient: str, pairing: str = "", rows: tuple[str, ...] = ()) -> Callable[[Scene, Rogue], dict[str, Any]]:
    def detail(scene: Scene, rogue: Rogue) -> dict[str, Any]:
        pairing_ = scene.pairings[pairing or patient].hex()
        messages = [["d", "1.1", row] for row in rows]
        return {"messages": [{"patient": patient, "pairing": pairing_, "month": "2026-11", "version": "v2",
                              "messages": messages}]}  # fmt: skip

    return detail


def seen_of(path: Path, pairing: bytes) -> str:
    with closing(open_at(path)) as file:
        (row,) = [nonce.hex() + digest.hex() for whose, _, nonce, digest in file.all_seen() if whose == pairing]
    return row


def forgot(patient: str, listed: str) -> Smuggle:
    """That a text was forged which the practice knows: its seen row goes, and the text could be shown again as new.

    ``listed``: how the guest's own reading has it, or not at all.
    """

    def do(scene: Scene, rogue: Rogue) -> None:
        row = seen_of(rogue.path, scene.pairings[patient])
        own = (row + listed,) if listed != "not at all" else ()
        read = rogue.opens().append(rogue.sealed("message.decrypt", read_of("EXP-1", patient, own)(scene, rogue)))
        with by_hand(rogue.path) as db:
            db.execute("DELETE FROM seen WHERE pairing = ?", (scene.pairings[patient],))
        detail = read_of("EXP-1", patient, (row,))(scene, rogue)
        rogue.append(rogue.sealed("message.failed", detail | {"entry": read.sequence}, outcome="not-authentic"))

    return do


def without_its_reason(scene: Scene, rogue: Rogue) -> None:
    rogue.append(rogue.opening())
    rogue.append(rogue.sealed("message.decrypt", read_of("EXP-1")(scene, rogue)))


def another_reason(scene: Scene, rogue: Rogue) -> None:
    rogue.append(rogue.opening())
    rogue.append(rogue.reason(rogue.request.enclosure.decode().replace("No despierta", "Se fue")))


def reason_about(scene: Scene, rogue: Rogue) -> None:
    rogue.append(rogue.opening())
    rogue.append(rogue.reason(subject="EXP-2"))


def failure_of_the_doctors(scene: Scene, rogue: Rogue) -> None:
    detail = read_of("EXP-1")(scene, rogue) | {"entry": rogue.request.told.sequence}
    rogue.opens().append(rogue.sealed("message.failed", detail))


SMUGGLED = (
    Smuggling("the policy changed, in the doctor's name", lambda s, r: changed_behind(s, r, "doctor")),
    Smuggling("the same in its own name", changed_behind),
    Smuggling("the same before its opening, in the doctor's name", changed_before),
    Smuggling("the same with its opening", changed_by_the_opening),
    Smuggling("the same in the doctor's name, another guest's opening behind it", between_two_of_one),
    Smuggling("the escrow exchanged", escrow_exchanged),
    Smuggling("the close of another's use", lambda s, r: r.opens().append(r.close(bytes(32)))),
    Smuggling("a second use of the same approvals", lambda s, r: r.opens().append(r.opening())),
    Smuggling("a second request under the same key", second_of_one_key),
    Smuggling("a use of a request that names a guest's entry", asked_behind_a_guests),
    Smuggling("a reading behind its close", behind_the_close),
    Smuggling("a reading behind the doctor's next entry", behind_the_doctors),
    Smuggling("an opening by another key than the request names", by_another_key),
    Smuggling("an opening by one custodian", lambda s, r: r.append(r.opening(r.approvals[:1]))),
    Smuggling("an opening by one custodian twice", lambda s, r: r.append(r.opening(r.approvals[:1] * 2))),
    Smuggling("an opening for the practice", opened_for_the_practice),
    Smuggling("an opening behind its end", lambda s, r: opened(s, r, time=r.now(hours=13))),
    Smuggling("an opening long before it", lambda s, r: opened(s, r, time=r.now(hours=-25))),
    Smuggling("an opening in another's name", lambda s, r: opened(s, r, token="bg-00000000")),
    Smuggling("a close behind its end", lambda s, r: r.opens().append(r.close(time=r.now(hours=13)))),
    Smuggling("a restore", in_the_clear("vault.restore", {"abandoned_sequence": 2, "abandoned_hash": "00" * 32})),
    Smuggling("a re-key begun", in_the_clear("vault.rekey", {"generation": 3, "reason": "shred"}, "intended")),
    Smuggling("a re-key done", in_the_clear("vault.rekey", rekeyed(3))),
    Smuggling("a reading of another patient", wrote("message.decrypt", read_of("EXP-2")), TOKEN),
    Smuggling("the same, called by the one's name", wrote("message.decrypt", read_of("EXP-1", "EXP-2")), TOKEN),
    Smuggling("a pairing that there is not", wrote("message.decrypt", lambda s, r: {
        "messages": [{"patient": "EXP-1", "pairing": "00" * 8, "month": "2026-11", "version": "v2", "messages": []}]}),
        TOKEN),
    Smuggling("an entry that wrote rows", wrote("message.decrypt", lambda s, r: {"writes": ["log//1"]}), TOKEN),
    Smuggling("an entry that deleted rows", wrote("message.decrypt", lambda s, r: {"deletes": ["log//1"]}), TOKEN),
    Smuggling("a text encrypted", wrote("message.encrypt", read_of("EXP-1"), subject="EXP-1"), TOKEN),
    Smuggling("a hold lifted", wrote("hold.remove", lambda s, r: {}), TOKEN),
    Smuggling("a reading in the doctor's name", wrote("message.decrypt", read_of("EXP-1"), token="doctor"), TOKEN),
    Smuggling("a reading as another guest", wrote("message.decrypt", read_of("EXP-1"), token="bg-00000000"), TOKEN),
    Smuggling("a reading behind its end", wrote("message.decrypt", read_of("EXP-1"), time=13), TOKEN),
    Smuggling("a reading before its opening", wrote("message.decrypt", read_of("EXP-1"), time=-1), TOKEN),
    Smuggling("no reason", without_its_reason, TOKEN),
    Smuggling("another reason", another_reason, TOKEN),
    Smuggling("a reason about another patient", reason_about, TOKEN),
    Smuggling("its reason twice", lambda s, r: r.opens().append(r.reason()), TOKEN),
    Smuggling("a failure of the doctor's reading", failure_of_the_doctors, TOKEN),
    Smuggling("a failure that nobody listed", forgot("EXP-1", "not at all"), TOKEN),
    Smuggling("a failure of a text that was known before", forgot("EXP-1", " seen"), TOKEN),
    Smuggling("a failure of another patient's text", forgot("EXP-2", ""), TOKEN),
)  # fmt: skip


@pytest.mark.parametrize("smuggling", SMUGGLED, ids=str)
def test_what_a_guest_smuggles_in_is_refused(scene: Scene, rogue: Rogue, smuggling: Smuggling) -> None:
    smuggling.do(scene, rogue)
    if smuggling.by == KEYS:
        assert refused(lambda: verify_file(rogue.path, scene.keys))
        before = rogue.path.read_bytes()
        for name in ("doctor", "spare"):
            assert refused(partial(scene.practice.open, rogue.path, token=name))
        assert rogue.path.read_bytes() == before
        return
    verify_file(rogue.path, scene.keys)
    with scene.practice.open(rogue.path, token="doctor") as vault:
        newest = vault.status().entries
        assert "of a guest" in refused(vault.log.verify)
        assert "of a guest" in refused(lambda: vault.encrypt("EXP-1", "hola"))
        assert "of a guest" in refused(lambda: vault.custodians.rotate(lambda name: pin, OtherTokens(pin)))
        assert vault.status().entries == newest
