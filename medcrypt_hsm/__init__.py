"""MedCrypt HSM: key management for encrypted doctor–patient messages, on hardware tokens.

``Vault`` is the library's door (api/vault.py), ``TokenOptions`` and ``Policy`` are what it takes; they are imported
when they are asked for, so that ``medcrypt --help`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.version import VERSION as __version__

if TYPE_CHECKING:
    from medcrypt_hsm.api.vault import Vault
    from medcrypt_hsm.lifecycle.enroll import TokenOptions
    from medcrypt_hsm.vault.audit.trust import Policy

__all__ = ["MedcryptError", "Policy", "TokenOptions", "Vault", "__version__"]
_HOMES = {"Policy": "vault.audit.trust", "TokenOptions": "lifecycle.enroll", "Vault": "api.vault"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"medcrypt_hsm.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
