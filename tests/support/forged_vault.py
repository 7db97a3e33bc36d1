"""A whole vault forged by somebody with a copy of the file and no token: plain code without pytest.

Vault, ceremony and custodians have the true ids and approval keys, and the escrow holds the forger's keyset. What the
forger cannot do is sign as the token with which the ceremony was held.
"""

from __future__ import annotations

import os
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from medcrypt_hsm.lifecycle import escrow
from medcrypt_hsm.vault.choosing import peek
from tests.support.store import open_at
from tests.support.vault_builder import SoftToken, VaultBuilder


def forge(true_file: Path, path: Path, *, commitments: bool = True, key: bytes = b"") -> tuple[SoftToken, int]:
    """Write it to ``path``; the forger's audit key, and how many entries there are.

    ``commitments``: the true ones. ``key``: another break-glass key than the true one.
    """
    with closing(open_at(true_file)) as file:
        true = peek(file)
    assert true.breakglass is not None
    evil = SoftToken("doctor")
    built = VaultBuilder(vault=true.vault_id)
    built.introduce(evil, evil)
    built.open_month("2026-11")
    built.add_keyset(evil)
    built.sealed(evil)
    built.intend(evil, reason="ceremony")
    told: list[dict[str, Any]] = []
    for name, custodian in sorted(true.breakglass.custodians.items(), key=lambda item: item[1].x):
        if not commitments:
            custodian = custodian._replace(commitment=os.urandom(32))
        built.set_trust("custodian", name, custodian.value())
        told.append(custodian.told())
    public = key or true.breakglass.key
    row = true.breakglass._replace(key=public, audit_key=evil.id, entry=len(built.rows) + 1, since=built.now())
    built.set_trust("breakglass", "", row.value())
    keyset = (os.urandom(32), os.urandom(32), os.urandom(32))
    sealed = escrow.seal(row.key, keyset, true.vault_id, 2, row.ceremony)
    built.set_trust("escrow", "", row.escrow._replace(generation=2, sealed=sealed).value())
    custody = {"ceremony": row.ceremony.hex(), "custodians": told, "key": sha256(row.key).hexdigest(), "threshold": 2}
    built.commit(evil, custody=custody)
    built.end(evil)
    path.parent.mkdir(mode=0o700)
    built.write(path)
    return evil, len(built.rows)
