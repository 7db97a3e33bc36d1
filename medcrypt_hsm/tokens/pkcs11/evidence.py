"""What a KEK or a signing key should say of itself, and in words what is wrong if it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pkcs11 import Attribute

from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import AES_KW, P256_HPKE

_GUARD = {
    "sensitive": (True, "its value can be read (SENSITIVE is false)"),
    "always_sensitive": (True, "its value could be read at some time (ALWAYS_SENSITIVE is false)"),
    "extractable": (False, "it can be wrapped and carried off (EXTRACTABLE is true)"),
    "never_extractable": (True, "it could be carried off at some time (NEVER_EXTRACTABLE is false)"),
    "local": (True, "it was not made on the token (LOCAL is false)"),
    "private": (True, "it can be used without the PIN (PRIVATE is false)"),
}


def _only(*uses: str) -> dict[str, tuple[bool, str]]:
    every = {
        "encrypt": t("encrypt"), "decrypt": t("decrypt"), "wrap": t("wrap keys"), "unwrap": t("unwrap keys"),
        "sign": t("sign"), "verify": t("verify"), "derive": t("derive keys"),
    }  # fmt: skip
    lacks = {
        use: (True, t("it cannot {action} ({attribute} is false)", action=words, attribute=use.upper()))
        for use, words in every.items()
        if use in uses
    }
    excess = {
        use: (False, t("it can {action} ({attribute} is true)", action=words, attribute=use.upper()))
        for use, words in every.items()
        if use not in uses
    }
    return lacks | excess


KEK_SHOULD = _GUARD | _only("wrap", "unwrap")
KEK_PAIR_SHOULD = _GUARD | _only("derive")  # of the private half
SIGNING_KEY_SHOULD = _GUARD | _only("sign")
SHOULD = {AES_KW: KEK_SHOULD, P256_HPKE: KEK_PAIR_SHOULD, None: SIGNING_KEY_SHOULD}  # by the profile of a KEK
CLAIMS = [Attribute[name.upper()] for name in (*KEK_SHOULD, "token", "modifiable")]
_ESSENTIAL = frozenset(_GUARD)


def problems(claims: Mapping[str, bool], should: Mapping[str, tuple[bool, str]]) -> Iterator[str]:
    """An attribute that a token does not know at all is a problem only where the key's secrecy hangs on it."""
    for name, (wanted, words) in should.items():
        value = claims.get(name)
        if value is None and (name in _ESSENTIAL or wanted):
            yield t("the token does not say whether {attribute} holds", attribute=name.upper())
        elif value is not None and value is not wanted:
            yield words
