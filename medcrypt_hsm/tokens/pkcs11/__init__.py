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

from medcrypt_hsm.tokens.pkcs11.modules import SlotToken, find, list_infos
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token, open_pkcs11

__all__ = ["Pkcs11Token", "SlotToken", "find", "list_infos", "open_pkcs11"]
