"""The PKCS#11 backend, and the only place that imports ``pkcs11`` (python-pkcs11).

    errors.py        one lock round every call, one table from foreign errors to ours
    cryptoki.py      the functions of a module that python-pkcs11 does not offer
    module_paths.py  where modules are
    modules.py       modules loaded, tokens found, flags looked at, PINs given: a ``Session`` comes out
    door.py          one process at a time finds a token or logs in
    keys.py          templates and the handles of unwrapped keys: the hot path
    aes_kw.py        the profile aes-kw: an AES KEK, everything under it on the token
    p256_hpke.py     the profile p256-hpke: a P-256 KEK, of which the token does one ECDH
    p256.py          public keys as PKCS#11 shows them
    evidence.py      what a key should say of itself
    token.py         ``Pkcs11Token``: the ``Token`` protocol over a session
    setup.py         a blank token made ready, PINs changed and unblocked

Its modules import python-pkcs11, so ``tokens/__init__.py`` imports them only when a URI asks for it.
"""
