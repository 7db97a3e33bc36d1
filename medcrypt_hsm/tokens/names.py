"""What the keys and objects of a vault are called on its tokens (docs/spec/tokens.md, "Names and URIs").

Each name tells what the thing is for and of which vault, so that one token can serve several vaults, and what an
interrupted run left is found again. Pure text: what has such a name is made elsewhere.
"""

from __future__ import annotations

# Of each of the vault's tokens


def kek_name(vault_id: bytes, generation: int) -> str:
    """The root KEK that was made at that re-key."""
    return f"{kek_prefix(vault_id)}{generation}"


def kek_prefix(vault_id: bytes) -> str:
    """What the names of all root KEKs of a vault begin with."""
    return f"medcrypt kek {vault_id.hex()} "


def audit_key_name(vault_id: bytes) -> str:
    """The key that signs the log's heads."""
    return f"medcrypt audit {vault_id.hex()}"


def anchor_name(vault_id: bytes) -> str:
    """The small object that remembers the log."""
    return f"medcrypt anchor {vault_id.hex()}"


# Of a custodian's token


def share_kek_name(vault_id: bytes, ceremony: bytes) -> str:
    """The KEK under which the share lies."""
    return _of_ceremony("share-kek", vault_id, ceremony)


def share_name(vault_id: bytes, ceremony: bytes) -> str:
    """The small object with the share."""
    return _of_ceremony("share", vault_id, ceremony)


def approval_name(vault_id: bytes, ceremony: bytes) -> str:
    """The key that signs approvals and drill results."""
    return _of_ceremony("approval", vault_id, ceremony)


def _of_ceremony(what: str, vault_id: bytes, ceremony: bytes) -> str:
    return f"medcrypt {what} {vault_id.hex()} {ceremony.hex()}"


# Of the token of whoever asks for break-glass


def request_kek_name(vault_id: bytes) -> str:
    """The KEK under which the seed lies that opens the approvals."""
    return f"medcrypt request-kek {vault_id.hex()}"


def request_name(vault_id: bytes) -> str:
    """The small object with that seed."""
    return f"medcrypt request {vault_id.hex()}"


def signer_name(vault_id: bytes) -> str:
    """The key that signs the request, and the entries that are written by its right."""
    return f"medcrypt request-sign {vault_id.hex()}"
