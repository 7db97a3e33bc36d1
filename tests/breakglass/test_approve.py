"""Requests and approvals that are not what they should be: found by the custodian, or by whoever uses them.

In: true files, altered; and files that somebody made, who has a key of their own or colludes. Each is refused by a rule
that has a name, and the file is not written to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pytest

from medcrypt_hsm.breakglass import approve
from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.errors import Malformed, MedcryptError, NotAuthentic, TokenUnfit
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import approval_name
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.consent import Custody, check_approvals
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.statements import Approval, Request, RequestedBy, read
from medcrypt_hsm.vault.choosing import peek
from tests.support.breakglass import CUSTODIANS, Circle, pin_of
from tests.support.checkout import FULL
from tests.support.practice import Practice, pin
from tests.support.rogue import ELSEWHERE, Rogue, signed, to_request
from tests.support.softhsm import SoftHsm
from tests.support.store import open_at
from tests.support.vault_builder import SoftToken


@dataclass
class Scene:
    """Two ceremonies, and what was consented to in the first."""

    circle: Circle
    old: tuple[bytes, bytes]  # a request of the first ceremony, and Ana's approval
    request: bytes
    approved: dict[str, bytes]
    other: dict[str, bytes]  # approvals of another request

    @property
    def custody(self) -> Custody:
        with closing(open_at(self.circle.practice.path)) as file:
            present = peek(file).breakglass
        assert present is not None
        return Custody.of(present)

    def colluding(self, who: str, y: bytes | None = None, **changed: Any) -> bytes:
        """What a custodian's token would sign for somebody who heeds no rule."""
        asked, true = read(self.request, Request), read(self.approved[who], Approval)
        enclosure = true.enclosure
        if y is not None:
            enclosure = xwing.seal(asked.told.key, to_request(true, asked), y).hex().encode()
        told = replace(true.told, **changed)
        with open_token(self.circle.uris[who], pin) as token:
            key = approval_name(true.told.vault_id, true.told.ceremony)
            return approve.sign(token, key, replace(told, enclosed=sha256(enclosure).digest()), enclosure).file()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, softhsm: SoftHsm) -> Scene:
    uris = {name: softhsm.make_token() for name in ("doctor", *CUSTODIANS, "nueva")}
    directory = tmp_path_factory.mktemp("scene")
    practice = Practice(directory / "practice" / "vault.db", uris["doctor"])
    practice.create().close()
    circle = Circle(practice, uris, directory / "homes")
    circle.ceremony()
    first = circle.request("EXP-1")
    old = first, circle.approve(first, "ana")
    practice.clock.forward(hours=1)
    with practice.open() as vault:
        vault.custodians.rotate(pin_of, OtherTokens(pin))
    other = circle.request("EXP-1")
    others = {who: circle.approve(other, who) for who in CUSTODIANS}
    request = circle.request("EXP-1")
    return Scene(circle, old, request, {who: circle.approve(request, who) for who in CUSTODIANS}, others)


def refused(call: Callable[[], object], error: type[MedcryptError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.hint


# Bytes


def altered(data: bytes) -> list[bytes]:
    """One bit of each byte, and its case; ends cut off and put on; the same JSON in other words."""
    found = [
        data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
        for at in range(0, len(data), 1 if FULL else 5)
        for bit in (0x01, 0x20, 0x80)
    ]
    found += [data[:-1], data[:-2], data + b"\n", b"\n" + data, b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n")]
    statement, rest = data.split(b"\n", 1)
    found += [b" " + data, statement + b" \n" + rest, statement.replace(b'":', b'": ') + b"\n" + rest]
    found += [statement.replace(b'"version":1', b'"version":true') + b"\n" + rest]
    found += [statement.replace(b'"version":1', b'"version":1,"version":1') + b"\n" + rest]
    found += [statement.replace(b'"version":1', b'"version":1.0') + b"\n" + rest]
    found += [statement.replace(b'{"', b'{"a":0,"', 1) + b"\n" + rest, b"[" * 60_000, data * 40, b""]
    return [changed for changed in found if changed != data]


def test_no_byte_of_a_request_can_be_another(scene: Scene) -> None:
    for changed in altered(scene.request):
        with pytest.raises(NotAuthentic):  # Malformed is one
            (asked := read(changed, Request)).verify(asked.told.signer)


def test_no_byte_of_an_approval_can_be_another(scene: Scene) -> None:
    custody, asked = scene.custody, read(scene.request, Request)
    for changed in altered(scene.approved["ana"]):
        with pytest.raises((NotAuthentic, BreakGlassRefused)):
            check_approvals([read(scene.approved["carla"], Approval), read(changed, Approval)], asked, custody)


# What a custodian refuses


@dataclass(frozen=True)
class Asked:
    name: str
    changed: Callable[[Scene], dict[str, Any]]
    error: type[MedcryptError]
    words: str
    by: Callable[[Scene, RequestedBy], RequestedBy] = lambda scene, by: by
    forged: bool = False  # signed by another key than its own

    def __str__(self) -> str:
        return self.name


def serial_of(scene: Scene, who: str) -> str:
    with open_token(scene.circle.uris[who], pin) as token:
        return token.info.serial


ZEROS = bytes(32)
ASKED = (
    Asked("that has ended", lambda s: {"created": "2026-11-20T10:00:00Z", "expires": "2026-11-21T10:00:00Z"},
          BreakGlassRefused, "BG-4"),
    Asked("of the day after tomorrow", lambda s: {"created": "2026-11-24T10:00:00Z", "expires": "2026-11-24T11:00:00Z"},
          BreakGlassRefused, "BG-4"),
    Asked("that lasts too long", lambda s: {"expires": "2026-11-25T20:00:00Z"}, Malformed, "not a break-glass request"),
    Asked("that ends before it begins", lambda s: {"expires": "2026-11-22T00:00:00Z"}, Malformed, "not a break-glass"),
    Asked("to another vault", lambda s: {"vault_id": bytes(16)}, BreakGlassRefused, "BG-3"),
    Asked("to another ceremony", lambda s: {"ceremony": bytes(6)}, BreakGlassRefused, "BG-3"),
    Asked("to the ceremony before", lambda s: {"ceremony": read(s.old[0], Request).told.ceremony}, BreakGlassRefused,
          "BG-3"),
    Asked("with a key that is none", lambda s: {"key": b"\xff" * 1216}, NotAuthentic, "not an X-Wing public key"),
    Asked("with a key that gives everybody the same secret", lambda s: {
        "key": read(s.request, Request).told.key[:-32] + ZEROS}, NotAuthentic, "not an X-Wing public key"),
    Asked("with no P-256 key as its signer", lambda s: {"signer": bytes(91)}, Malformed, "not a break-glass request"),
    Asked("that somebody else signed", lambda s: {}, NotAuthentic, "does not verify", forged=True),
    Asked("by the custodian's own token", lambda s: {}, BreakGlassRefused, "BG-2",
          by=lambda s, by: replace(by, token=ELSEWHERE | {"serial": serial_of(s, "ana")})),
    Asked("for the practice, naming a patient", lambda s: {"scope": "practice"}, Malformed, "not a break-glass"),
    Asked("for a patient, naming none", lambda s: {}, Malformed, "not a break-glass request",
          by=lambda s, by: replace(by, patient="")),
    Asked("without a reason", lambda s: {}, Malformed, "not a break-glass request",
          by=lambda s, by: replace(by, reason="")),
    Asked("with too much of one", lambda s: {}, Malformed, "not a break-glass request",
          by=lambda s, by: replace(by, reason="x" * 1001)),
    Asked("in a guest's name", lambda s: {}, Malformed, "not a break-glass request",
          by=lambda s, by: replace(by, name="bg-12345678")),
)  # fmt: skip


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_custodian_refuses_a_request(scene: Scene, asked: Asked) -> None:
    rogue = Rogue.asks(scene.circle, scene.circle.practice.path)
    enclosure = asked.by(scene, statements.requested_by(rogue.request)).encode()
    key = SoftToken("other") if asked.forged else rogue.key
    request = signed(replace(rogue.request.told, **asked.changed(scene)), key, enclosure).file()
    before = len(scene.circle.told)
    refused(lambda: scene.circle.approve(request, "ana"), asked.error, asked.words)
    if "X-Wing" not in asked.words:
        assert len(scene.circle.told) == before, "Ana was asked whether she agrees"


def test_another_reason_in_the_enclosure(scene: Scene) -> None:
    request = scene.request.replace(b"no despierta", b"se despierta")
    refused(lambda: scene.circle.approve(request, "ana"), Malformed, "it was altered")
    refused(lambda: scene.circle.decrypt(request, [*scene.approved.values()]), Malformed, "it was altered")


# What whoever uses them refuses


Given = Callable[[Scene], list[bytes]]


@dataclass(frozen=True)
class Used:
    name: str
    given: Given
    error: type[MedcryptError]
    words: str
    request: Callable[[Scene], bytes] = lambda scene: scene.request
    who: str = "nueva"
    hours: float = 0

    def __str__(self) -> str:
        return self.name


def resigned(scene: Scene, who: str) -> bytes:
    true = read(scene.approved[who], Approval)
    return signed(true.told, SoftToken("other"), true.enclosure).file()


def in_another_name(scene: Scene) -> list[bytes]:
    told = read(scene.approved["berta"], Approval).told
    return [scene.approved["ana"], scene.colluding("ana", custodian="berta", x=told.x, commitment=told.commitment)]


def swapped(scene: Scene) -> list[bytes]:
    """One's sealed share under the other's statement."""
    ana, berta = (scene.approved[who].split(b"\n") for who in ("ana", "berta"))
    return [scene.approved["carla"], b"\n".join([*ana[:2], berta[2], b""])]


USED = (
    Used("none", lambda s: [], BreakGlassRefused, "BG-2"),
    Used("fewer than the threshold", lambda s: [s.approved["ana"]], BreakGlassRefused, "BG-2"),
    Used("one custodian's twice", lambda s: [s.approved["ana"]] * 2, BreakGlassRefused, "'ana' is there twice"),
    Used("one custodian's twice, in two statements",
         lambda s: [s.approved["ana"], s.colluding("ana", time="2026-11-22T13:30:00Z")], BreakGlassRefused,
         "'ana' is there twice"),
    Used("one of another request", lambda s: [s.approved["ana"], s.other["berta"]], BreakGlassRefused,
         "'berta' is of another request"),
    Used("one of the ceremony before", lambda s: [s.approved["berta"], s.old[1]], BreakGlassRefused,
         "'ana' is of another request"),
    Used("one of the ceremony before, for this request", lambda s: [
        s.approved["berta"], s.colluding("ana", ceremony=read(s.old[0], Request).told.ceremony)], BreakGlassRefused,
        "'ana' is of another ceremony"),
    Used("one in another's name", in_another_name, NotAuthentic, "'berta' is not signed by that custodian's token"),
    Used("one by nobody", lambda s: [s.approved["ana"], resigned(s, "berta")], NotAuthentic,
         "'berta' is not signed by that custodian's token"),
    Used("one of somebody who is no custodian", lambda s: [s.approved["ana"], s.colluding("berta", custodian="eva")],
         BreakGlassRefused, "'eva' is of another ceremony, or of nobody's"),
    Used("one of another share", lambda s: [s.approved["ana"], s.colluding("berta", x=3)], BreakGlassRefused,
         "'berta' is of another ceremony, or of nobody's"),
    Used("one of another commitment", lambda s: [s.approved["ana"], s.colluding("berta", commitment=ZEROS)],
         NotAuthentic, "'berta' is of a ceremony that was held in another log"),
    Used("one of another log", lambda s: [s.approved["ana"], s.colluding("berta", audit_key=ZEROS)], NotAuthentic,
         "'berta' is of a ceremony that was held in another log"),
    Used("one of tomorrow night", lambda s: [s.approved["ana"], s.colluding("berta", time="2026-11-23T23:00:00Z")],
         BreakGlassRefused, "'berta' was given outside"),
    Used("one of before", lambda s: [s.approved["ana"], s.colluding("berta", time="2026-11-20T10:00:00Z")],
         BreakGlassRefused, "'berta' was given outside"),
    Used("one with another's sealed share", swapped, Malformed, "not a break-glass approval"),
    Used("one with a share that is made up", lambda s: [s.approved["ana"], s.colluding("berta", y=b"y" * 32)],
         NotAuthentic, "berta does not match its commitment .*BG-6"),
    Used("one with more than a share", lambda s: [s.approved["ana"], s.colluding("berta", y=b"y" * 33)],
         NotAuthentic, "berta does not match its commitment .*BG-6"),
    Used("used by a clock that is two days slow", lambda s: [*s.approved.values()], BreakGlassRefused, "BG-4",
         hours=-48),
    Used("used with a custodian's token", lambda s: [*s.approved.values()], BreakGlassRefused, "BG-2", who="berta"),
    Used("used with a token that did not ask", lambda s: [*s.approved.values()], TokenUnfit, "was not made with",
         who="doctor"),
    Used("of the ceremony before", lambda s: [s.old[1]], BreakGlassRefused, "BG-3", request=lambda s: s.old[0]),
)  # fmt: skip


@pytest.mark.parametrize("used", USED, ids=str)
def test_whoever_uses_them_refuses(scene: Scene, used: Used) -> None:
    practice = scene.circle.practice
    before, now = practice.path.read_bytes(), practice.clock.now
    practice.clock.forward(hours=used.hours)
    try:
        with pytest.raises(used.error, match=used.words) as caught:
            scene.circle.decrypt(used.request(scene), used.given(scene), who=used.who)
    finally:
        practice.clock.now = now
    assert caught.value.hint
    assert practice.path.read_bytes() == before


def test_more_than_enough_is_enough(scene: Scene) -> None:
    """So the true ones count: all three. Last, because it uses the request."""
    scene.circle.decrypt(scene.request, [*scene.approved.values()])
    refused(lambda: scene.circle.decrypt(scene.request, [*scene.approved.values()]), BreakGlassRefused, "BG-5")
