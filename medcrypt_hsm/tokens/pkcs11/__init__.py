"""The PKCS#11 backend, and the only place that imports ``pkcs11`` (python-pkcs11).

    errors.py     one lock around every call, one table from foreign errors to ours
    cryptoki.py   the functions of a module that python-pkcs11 does not offer
    module_paths.py  where the modules of this machine are
    modules.py    modules loaded, tokens found, flags looked at, PINs given: a ``Session`` comes out
    keys.py       templates and the handles of unwrapped keys: the hot path
    aes_kw.py     the profile aes-kw: an AES KEK, everything under it on the token
    p256_hpke.py  the profile p256-hpke: a P-256 KEK, of which the token does one ECDH
    p256.py       public keys as PKCS#11 shows them
    evidence.py   what a key should say of itself
    objects.py    what is on a token by name: found, made, read, destroyed and proven gone
    token.py      ``Pkcs11Token``: the ``Token`` protocol over a session
    setup.py      a token initialised, its PIN set and changed

Importing this package imports python-pkcs11, so tokens/access.py does it only when a URI asks for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


class _WhenAsked:
    """While python-pkcs11 is imported: its ``util`` modules are read when something in them is asked for.

    They load asn1crypto, x509 and all, a third of what python-pkcs11 takes to start, and nothing here asks for them.
    """

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("pkcs11.util."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def _import_library() -> None:
    finder = _WhenAsked()
    sys.meta_path.insert(0, finder)
    try:
        import pkcs11  # noqa: F401
    finally:
        sys.meta_path.remove(finder)


_import_library()

from medcrypt_hsm.tokens.pkcs11.modules import SlotToken, find, list_infos  # noqa: E402
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token, open_pkcs11  # noqa: E402

__all__ = ["Pkcs11Token", "SlotToken", "find", "list_infos", "open_pkcs11"]
