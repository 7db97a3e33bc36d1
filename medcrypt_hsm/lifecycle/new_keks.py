"""New root KEKs, made on the tokens that are there, and a new keyset wrapped under them (docs/spec/rekey.md).

In: an unlocked vault, open tokens, a generation. Out: each token's row with its new KEK; the keyset for every token
that can have it, proven to come back from those that are there. Not here: what the keyset is for (commit.py), and the
destruction of old KEKs (old_keks.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.lifecycle import enroll
from medcrypt_hsm.lifecycle.others import OpenToken, OtherTokens
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.names import kek_name
from medcrypt_hsm.tokens.p256_hpke import wrap_keyset
from medcrypt_hsm.vault import policy
from medcrypt_hsm.vault.audit.trust import RegisteredToken, WrappedKeyset
from medcrypt_hsm.vault.keyset import HostKeyset, VaultKeyset, keyset_info
from medcrypt_hsm.vault.unlocked import Unlocked


def make_kek(unlocked: Unlocked, opened: OpenToken, generation: int, options: OtherTokens) -> RegisteredToken:
    """A root KEK of ``generation`` made on the token, and the token's row with it. Raises TokenUnfit, Refused."""
    name, token = kek_name(unlocked.state.vault_id, generation), opened.token
    registered = unlocked.state.tokens[opened.name]
    token.destroy(name)  # left by an interrupted run; it wraps nothing
    token.make_kek(name, registered.profile, touch=registered.touch)
    keys = enroll.keys_of(unlocked.state.vault_id, generation)
    grade, reasons = enroll.grade(token, keys, registered.touch, options.roots, options.pins)
    policy.check_grade(unlocked.state.policy, grade, reasons)
    kek = token.public_key(name) if registered.profile == P256_HPKE else b""
    return registered._replace(kek=kek, attestation=grade)


def wrap_for_present(
    unlocked: Unlocked,
    opened: Sequence[OpenToken],
    made: Mapping[str, RegisteredToken],
    generation: int,
    secret: KeysetSecret,
    new: HostKeyset,
) -> tuple[dict[str, WrappedKeyset], VaultKeyset]:
    """The new keyset under each token's new KEK, and as the token in use unwraps it. Raises TokenUnfit."""
    keysets: dict[str, WrappedKeyset] = {}
    handles: VaultKeyset | None = None
    for each in opened:
        wrapped, keyset = enroll.wrap_keyset(each.token, made[each.name], unlocked.state.vault_id, generation, secret)
        try:
            enroll.prove_same(new, keyset)
        except BaseException:
            keyset.destroy()
            raise
        keysets[each.name] = wrapped
        if each.token is unlocked.token:
            handles = keyset
        else:
            keyset.destroy()
    assert handles is not None
    return keysets, handles


def wrap_for_absent(
    unlocked: Unlocked, without: Collection[str], generation: int, secret: KeysetSecret
) -> dict[str, WrappedKeyset]:
    """The new keyset under the old KEKs of tokens that are away, where a public key is enough to wrap it.

    All of them but those ``without``. An aes-kw KEK wraps only on its own token: that token opens the vault only after
    a sync.
    """
    keysets: dict[str, WrappedKeyset] = {}
    vault_id = unlocked.state.vault_id
    for name, absent in unlocked.state.tokens.items():
        old = unlocked.state.keyset_of(name)
        if name not in without and absent.profile == P256_HPKE and old is not None:
            info = keyset_info(vault_id, generation, absent.id)
            keysets[name] = WrappedKeyset(absent.id, old.kek, wrap_keyset(absent.kek, secret, info))
    return keysets
