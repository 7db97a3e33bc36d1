"""The grade that a vault requires, on virtual YubiKeys: with the vendor's certificates, without, and of other keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import Refused
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.attestation.vendor import read_roots
from medcrypt_hsm.tokens.provision import initialize
from medcrypt_hsm.vault.audit.trust import Policy
from tests.support.practice import MovedClock, Practice
from tests.support.yubikey import VirtualYubiKey, attestation_ca

PIN, PUK = "424242", "87654321"
DEVICE = Policy(require_attestation="device-attested")
Roots = tuple[tuple[bytes, ...], Mapping[bytes, str]]


def pin(info: TokenInfo) -> str:
    return PIN


@pytest.fixture
def key(yubikey: Callable[..., VirtualYubiKey]) -> VirtualYubiKey:
    made = yubikey("5.7.4")
    initialize(made.uri, None, PUK, PIN)
    return made


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """The tests' own vendor's certificates and their pins, as a caller of the library may name them."""
    vendor = attestation_ca("5.7.4")
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "vendor.pem").write_bytes(vendor.published)
    pins = dict.fromkeys(vendor.fingerprints(), "test vendor")
    return read_roots(tmp_path / "roots", pins), pins


def create(path: Path, key: VirtualYubiKey, wish: TokenOptions) -> Vault:
    return Vault.create(path, token="doctor", uri=key.uri, pin=pin, options=wish, policy=DEVICE, clock=MovedClock())


def test_followed_to_the_vendors_root(tmp_path: Path, key: VirtualYubiKey, roots: Roots) -> None:
    with create(tmp_path / "v" / "vault.db", key, TokenOptions(roots=roots[0], pins=roots[1])) as vault:
        (token,) = vault.status().tokens
        assert (token.attestation, token.profile, token.serial) == ("device-attested", "p256-hpke", str(key.serial))
        assert vault.status().problems == ()
        vault.log.verify()


@pytest.mark.parametrize("given", ["nothing", "the program's own pins"])
def test_a_chain_that_is_not_followed_is_not_enough(
    tmp_path: Path, key: VirtualYubiKey, roots: Roots, given: str
) -> None:
    """And nothing of the vault stays on the key, in the file, or in the way of the next try."""
    wish = TokenOptions() if given == "nothing" else TokenOptions(roots=roots[0])
    before = set(key.state.keys)
    with pytest.raises(Refused, match="requires tokens that are device-attested"):
        create(tmp_path / "v" / "vault.db", key, wish)
    assert set(key.state.keys) == before
    with open_token(key.uri, pin) as token:
        assert token.names() == []
    assert list((tmp_path / "v").iterdir()) == []
    create(tmp_path / "v" / "vault.db", key, TokenOptions(roots=roots[0], pins=roots[1])).close()


def test_a_spare_of_another_kind_is_refused_and_one_of_the_same_kind_is_not(
    practice: Practice, key: VirtualYubiKey, roots: Roots
) -> None:
    with practice.open() as vault:
        vault.set_policy(require_attestation="device-attested")
        with pytest.raises(Refused):
            vault.tokens.add("llavero", key.uri, pin=pin)
        added = vault.tokens.add(
            "llavero", key.uri, pin=pin, options=TokenOptions(roots=roots[0], pins=roots[1], touch="cached")
        )
        assert (added.attestation, added.touch) == ("device-attested", "cached")
        assert [problem.split()[1] for problem in vault.status().problems if "below" in problem] == ["doctor"]
