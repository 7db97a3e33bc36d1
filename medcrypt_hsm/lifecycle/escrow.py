"""The escrow copy of a vault keyset: sealed to the break-glass key, opened by its seed (docs/spec/breakglass.md)."""

from __future__ import annotations

import hmac

from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, VaultDamaged
from medcrypt_hsm.notation import ctx, u64
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.trust_custody import ESCROW_BYTES


def _info(vault_id: bytes, generation: int, ceremony: bytes) -> bytes:
    return ctx("medcrypt/escrow", vault_id, u64(generation), ceremony)


def seal(key: bytes, keyset: KeysetSecret, vault_id: bytes, generation: int, ceremony: bytes) -> bytes:
    """1,232 bytes. ``key`` is the X-Wing public key of a trust state that was verified: HPKE would seal to any."""
    with Secret(b"".join(keyset)) as joined:
        return xwing.seal(key, _info(vault_id, generation, ceremony), joined.value)


def open_keyset(
    seed: Secret, sealed: bytes, vault_id: bytes, generation: int, ceremony: bytes
) -> tuple[Secret, Secret, Secret]:
    """wrapping, mac, sealing; the caller wipes them. Raises VaultDamaged."""
    try:
        if len(sealed) != ESCROW_BYTES:
            raise NotAuthentic(
                t("an escrowed keyset has {right} bytes, not {count}", right=ESCROW_BYTES, count=len(sealed))
            )
        joined = xwing.open_with_seed(seed, _info(vault_id, generation, ceremony), sealed)
    except NotAuthentic as exc:
        raise VaultDamaged("the escrowed keyset does not open with the break-glass key", "use a backup") from exc
    with joined:
        wrapping, mac, sealing = (Secret(joined.value[at : at + 32]) for at in (0, 32, 64))
    return wrapping, mac, sealing


def prove(seed: Secret, sealed: bytes, keyset: KeysetSecret, vault_id: bytes, generation: int, ceremony: bytes) -> None:
    """That the seed opens it, and to these very keys. Raises VaultDamaged."""
    opened = open_keyset(seed, sealed, vault_id, generation, ceremony)
    same = all(hmac.compare_digest(one.value, other) for one, other in zip(opened, keyset, strict=True))
    for key in opened:
        key.wipe()
    if not same:
        raise VaultDamaged("the escrow opens to another keyset", "run the command again")
