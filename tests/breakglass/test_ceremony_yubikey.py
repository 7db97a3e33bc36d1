"""Custodians with YubiKeys of every firmware beside a PKCS#11 token; a practice in which every token is attested."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.breakglass import emergency
from medcrypt_hsm.errors import NotAuthentic, Refused
from medcrypt_hsm.lifecycle import shares as sharing
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.attestation.vendor import read_roots
from medcrypt_hsm.tokens.names import share_kek_name
from medcrypt_hsm.tokens.provision import initialize
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.statements import Approval, Request, read
from medcrypt_hsm.vault.audit.trust import Policy
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.store.rows import Location
from tests.kills.test_yubikey_pulled import RETIRED
from tests.support.breakglass import CUSTODIANS, Circle, pin_of
from tests.support.pcscd import Pcscd
from tests.support.practice import YUBIKEY_PIN, Practice, pin
from tests.support.softhsm import SoftHsm
from tests.support.store import open_at
from tests.support.yubikey import VirtualYubiKey, YubiKeys, attestation_ca

PUK = "23423108"


def keys_of(yubikey: YubiKeys, pcscd: Pcscd, *firmwares: str) -> list[VirtualYubiKey]:
    """All in their readers at once, with the PIN of the tests' other tokens."""
    pcscd.stop()
    pcscd.start(readers=len(firmwares))
    made = [yubikey(firmware) for firmware in firmwares]
    for key in made:
        initialize(key.uri, None, PUK, YUBIKEY_PIN)
    return made


def slots(key: VirtualYubiKey) -> int:
    return len(set(key.state.keys) & set(RETIRED))


WHOLE = ["approval", "share", "share-kek"]


def held(uri: str) -> list[str]:
    with open_token(uri, pin) as token:
        return sorted(name.split()[1] for name in token.names())


def held_by(vault: Vault) -> list[str]:
    return sorted(vault._unlocked.token.names())


def ceremony(circle: Circle) -> tuple[bytes, bytes]:
    with closing(open_at(circle.practice.path)) as file:
        state = peek(file)
    assert state.breakglass is not None
    return state.vault_id, state.breakglass.ceremony


@pytest.mark.parametrize("firmware", ["4.3.5", "5.4.3"])
def test_custodians_with_yubikeys(
    tmp_path: Path, yubikey: YubiKeys, pcscd: Pcscd, softhsm: SoftHsm, firmware: str
) -> None:
    """A ceremony, a drill, approvals, a recovery, and rotations that destroy what was before."""
    old, new = keys_of(yubikey, pcscd, firmware, "5.7.4")
    uris = {name: softhsm.make_token() for name in ("doctor", "nueva", "carla")} | {"ana": old.uri, "berta": new.uri}
    practice = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    practice.create().close()
    circle = Circle(practice, uris, tmp_path / "homes")
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
    made = circle.ceremony()
    told = {c["name"]: (c["profile"], c["attestation"], c["serial"]) for c in made.value["custody"]["custodians"]}
    assert told["ana"] == ("p256-hpke", "token-claimed", str(old.serial))
    assert told["berta"] == ("p256-hpke", "token-claimed", str(new.serial))
    assert told["carla"][0] == "aes-kw"
    assert [held(uris[who]) for who in CUSTODIANS] == [WHOLE] * 3
    assert f"serial {old.serial}, p256-hpke, token-claimed" in made.text

    practice.clock.forward(hours=1)
    assert circle.record(*map(circle.drill, CUSTODIANS)) == [*CUSTODIANS]
    request = circle.request()
    circle.recover(request, [circle.approve(request, who) for who in ("ana", "berta")])
    with practice.open() as vault:
        vault.log.verify()
        assert [opened.text for opened in vault.decrypt("\n".join(phone.write("¿sigue?")))] == ["¿sigue?"]

    vault_id, before = ceremony(circle)
    kept = {}
    for who in CUSTODIANS:
        with open_token(uris[who], pin) as token:
            kept[who] = sharing.read_record(token, vault_id, before)
    for _ in range(2):
        practice.clock.forward(hours=1)
        made = circle.rotate(token="nueva")
        assert [share["destroyed"] for share in made.value["old_shares"]] == [True] * 3
        assert [held(uris[who]) for who in CUSTODIANS] == [WHOLE] * 3
    assert slots(old) <= 4  # before 5.7 a slot cannot be emptied, and is used again
    assert slots(new) == 2
    for who, record in kept.items():
        with open_token(uris[who], pin) as token, pytest.raises((KeyError, NotAuthentic)):
            token.unwrap_key(share_kek_name(vault_id, before), record.wrapped, record.info)
    with practice.open() as vault:
        assert len(vault.custodians.reconstruct({who: uris[who] for who in CUSTODIANS}, pin_of, OtherTokens(pin))) == 3


@dataclass
class Roots:
    roots: tuple[bytes, ...]
    pins: Mapping[bytes, str]

    @classmethod
    def of(cls, directory: Path, *firmwares: str) -> Roots:
        directory.mkdir()
        vendors = [attestation_ca(firmware) for firmware in firmwares]
        pins = {pin: "test vendor" for vendor in vendors for pin in vendor.fingerprints()}
        for firmware, vendor in zip(firmwares, vendors, strict=True):
            (directory / f"{firmware}.pem").write_bytes(vendor.published)
        return cls(tuple(read_roots(directory, pins)), pins)

    @property
    def company(self) -> OtherTokens:
        return OtherTokens(pin, roots=self.roots, pins=self.pins)

    @property
    def wish(self) -> TokenOptions:
        return TokenOptions(roots=self.roots, pins=self.pins)


def test_every_token_attested(tmp_path: Path, yubikey: YubiKeys, pcscd: Pcscd, softhsm: SoftHsm) -> None:
    """BG-7: what cannot be followed to the vendor's root holds no share, and leaves nothing. And a recovery on a key
    that was followed there, when the doctor's is lost."""
    doctor, custodian = keys_of(yubikey, pcscd, "5.7.4", "5.4.3")
    uris = {"doctor": doctor.uri, "ana": custodian.uri, "dora": softhsm.make_token()}
    vendor = Roots.of(tmp_path / "roots", "5.4.3", "5.7.4")
    practice = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    practice.create(options=vendor.wish, policy=Policy(require_attestation="device-attested")).close()
    circle = Circle(practice, uris, tmp_path / "homes")
    shares = {name: uris[name] for name in ("ana", "dora")}
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        generation, doctors = vault.status().generation, held_by(vault)
        with pytest.raises(BreakGlassRefused, match=r"custodian dora: .*device-attested.*BG-7"):
            vault.custodians.ceremony(shares, 2, pin_of, vendor.company)
        with pytest.raises(Refused, match="device-attested"):  # the doctor's own new root key is not followed either
            vault.custodians.ceremony(shares, 2, pin_of, OtherTokens(pin))
        assert (vault.status().generation, vault.status().orphans) == (generation, ())
        assert vault.custodians.present is None
        assert held_by(vault) == doctors
        assert [held(uri) for uri in shares.values()] == [[], []]
        vault.log.verify()
        vault.set_policy(require_attestation="token-claimed")
        made = vault.custodians.ceremony(shares, 2, pin_of, vendor.company)
        grades = {c["name"]: c["attestation"] for c in made.value["custody"]["custodians"]}
        assert grades == {"ana": "device-attested", "dora": "token-claimed"}
        assert f"serial {custodian.serial}, p256-hpke, device-attested" in made.text
        vault.set_policy(require_attestation="device-attested")
    doctor.stop()

    nueva = VirtualYubiKey.make(pcscd, tmp_path / "nueva", serial=87654321, firmware="5.7.4", reader=0).start()
    try:
        initialize(nueva.uri, None, PUK, YUBIKEY_PIN)
        uris["nueva"] = nueva.uri
        request = circle.request()
        given = [read(circle.approve(request, who), Approval) for who in ("ana", "dora")]
        asked = read(request, Request)
        with pytest.raises(Refused, match="requires tokens that are device-attested"):
            emergency.recover(Location.parse(practice.path), circle.hand("nueva"), asked, given)
        assert held(nueva.uri) == ["request", "request-kek", "request-sign"]
        unlocked, _ = emergency.recover(
            Location.parse(practice.path), circle.hand("nueva"), asked, given, options=vendor.wish
        )
        assert unlocked.registered.attestation == "device-attested"
        unlocked.lock()
        unlocked.file.close()
        assert held(nueva.uri) == ["anchor", "audit", "kek"]
        with practice.open() as vault:
            assert [opened.text for opened in vault.decrypt("\n".join(phone.write("hola")))] == ["hola"]
            vault.log.verify()
    finally:
        nueva.stop()
