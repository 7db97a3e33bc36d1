"""Names on a token: as docs/spec/tokens.md has them, and no two things with one name."""

from __future__ import annotations

from medcrypt_hsm.tokens import names

VAULT, OTHER, CEREMONY = bytes(range(16)), bytes(16), b"\xcc" * 6
HEX, CC = VAULT.hex(), "cc" * 6


def test_they_are_frozen() -> None:
    """A vault that was made years ago finds its objects by them."""
    assert names.kek_name(VAULT, 12) == f"medcrypt kek {HEX} 12"
    assert names.audit_key_name(VAULT) == f"medcrypt audit {HEX}"
    assert names.anchor_name(VAULT) == f"medcrypt anchor {HEX}"
    assert names.share_kek_name(VAULT, CEREMONY) == f"medcrypt share-kek {HEX} {CC}"
    assert names.share_name(VAULT, CEREMONY) == f"medcrypt share {HEX} {CC}"
    assert names.approval_name(VAULT, CEREMONY) == f"medcrypt approval {HEX} {CC}"
    assert names.request_kek_name(VAULT) == f"medcrypt request-kek {HEX}"
    assert names.request_name(VAULT) == f"medcrypt request {HEX}"
    assert names.signer_name(VAULT) == f"medcrypt request-sign {HEX}"


def test_each_is_of_one_thing_and_one_vault() -> None:
    of_a_vault = (
        names.audit_key_name,
        names.anchor_name,
        names.request_kek_name,
        names.request_name,
        names.signer_name,
    )
    of_a_ceremony = (names.share_kek_name, names.share_name, names.approval_name)
    every = [name(vault) for name in of_a_vault for vault in (VAULT, OTHER)]
    every += [name(vault, bytes([x]) * 6) for name in of_a_ceremony for vault in (VAULT, OTHER) for x in (1, 2)]
    every += [names.kek_name(vault, generation) for vault in (VAULT, OTHER) for generation in (1, 11)]
    assert len(set(every)) == len(every)
    assert max(map(len, every)) <= 64, "the longest that a certificate's common name takes"


def test_a_prefix_is_of_the_root_keks_of_one_vault_alone() -> None:
    prefix = names.kek_prefix(VAULT)
    assert names.kek_name(VAULT, 3).startswith(prefix)
    others = (names.kek_name(OTHER, 3), names.share_kek_name(VAULT, CEREMONY), names.request_kek_name(VAULT))
    assert not any(other.startswith(prefix) for other in others)
