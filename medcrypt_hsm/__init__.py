"""MedCrypt HSM: key management for encrypted doctor–patient messages, on hardware tokens.

``Vault`` is the library's door (library.py); it is imported when it is asked for, so that ``medcrypt --help`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medcrypt_hsm.errors import MedcryptError

if TYPE_CHECKING:
    from medcrypt_hsm.library import Vault

__version__ = "0.1.0"
__all__ = ["MedcryptError", "Vault", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Vault":
        from medcrypt_hsm.library import Vault

        return Vault
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
