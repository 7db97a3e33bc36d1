"""TODO."""

from __future__ import annotations


def _name(what: str, vault_id: bytes, ceremony: bytes) -> str:
    return f"medcrypt {what} {vault_id.hex()} {ceremony.hex()}"


def share_kek_name(vault_id: bytes, ceremony: bytes) -> str:
    return _name("share-kek", vault_id, ceremony)


def approval_name(vault_id: bytes, ceremony: bytes) -> str:
    return _name("approval", vault_id, ceremony)


def share_name(vault_id: bytes, ceremony: bytes) -> str:
    return _name("share", vault_id, ceremony)


def kek_name(vault_id: bytes, generation: int) -> str:
    return f"{kek_prefix(vault_id)}{generation}"


def kek_prefix(vault_id: bytes) -> str:
    """What the names of all root KEKs of a vault begin with."""
    return f"medcrypt kek {vault_id.hex()} "


def audit_key_name(vault_id: bytes) -> str:
    return f"medcrypt audit {vault_id.hex()}"


def anchor_name(vault_id: bytes) -> str:
    return f"medcrypt anchor {vault_id.hex()}"


def request_name(vault_id: bytes) -> str:
    """The small object of whoever asks for break-glass."""
    return f"medcrypt request {vault_id.hex()}"


def signer_name(vault_id: bytes) -> str:
    return f"medcrypt request-sign {vault_id.hex()}"
