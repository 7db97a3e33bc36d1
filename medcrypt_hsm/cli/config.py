"""The config file: ``medcrypt/config.toml`` in the user's config directory, or where MEDCRYPT_CONFIG says.

In: the environment. Out: ``Config``, or UsageError for anything unknown. Not here: what the options mean (run.py).
"""

from __future__ import annotations

import os

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t

VARIABLE = "MEDCRYPT_CONFIG"
_LARGEST = 1 << 20  # bytes


class Config:
    """What a config file may say. Everything is optional."""

    __slots__ = ("pin_source", "pkcs11_modules", "vault")

    def __init__(
        self, vault: str | None = None, pin_source: str | None = None, pkcs11_modules: tuple[str, ...] = ()
    ) -> None:
        self.vault = vault
        self.pin_source = pin_source
        self.pkcs11_modules = pkcs11_modules


def own_directory(variable: str, at_home: str) -> str:
    """Where the program keeps what is this user's: by the XDG Base Directory Specification, 0.8."""
    base = os.environ.get(variable, "")
    if not os.path.isabs(base):  # "consider the path invalid and ignore it"
        base = os.path.join(os.path.expanduser("~"), at_home)
    return os.path.join(base, "medcrypt")


def load() -> Config:
    """Raises UsageError for a file that cannot be read or says something unknown."""
    named = os.environ.get(VARIABLE)
    path = named or os.path.join(own_directory("XDG_CONFIG_HOME", ".config"), "config.toml")
    if not named and not os.path.lexists(path):
        return Config()
    from medcrypt_hsm.given import read_given

    try:
        text = read_given(path, _LARGEST)
    except FileNotFoundError:
        raise UsageError(
            t("there is no config file {path}", path=path), t("make it, or unset {variable}", variable=VARIABLE)
        ) from None
    except OSError as exc:
        raise UsageError(
            t("the config file {path} cannot be read ({reason})", path=path, reason=exc.strerror),
            "check its owner and mode",
        ) from exc
    if len(text) > _LARGEST:
        raise UsageError(t("the config file {path} is too long to be one", path=path), "see what it is")
    return _parse(text, path)


def _parse(text: bytes, path: str) -> Config:
    import tomllib

    hint = 'it may say: vault = "…", pin_source = "…", pkcs11_modules = ["…"]'
    try:
        said = tomllib.loads(text.decode())
    except ValueError as exc:  # tomllib's and UTF-8's errors are both
        raise UsageError(t("the config file {path} is not TOML: {reason}", path=path, reason=exc), hint) from exc
    if unknown := sorted(set(said) - set(Config.__slots__)):
        raise UsageError(
            t("the config file {path} says {name!r}, which means nothing", path=path, name=unknown[0]), hint
        )
    for key in ("vault", "pin_source"):
        if not isinstance(said.get(key, ""), str):
            raise UsageError(t("{key} in the config file {path} must be a text", key=key, path=path), hint)
    modules = said.get("pkcs11_modules", [])
    if not (isinstance(modules, list) and all(isinstance(module, str) for module in modules)):
        raise UsageError(t("pkcs11_modules in the config file {path} must be a list of texts", path=path), hint)
    vault = said.get("vault")
    if vault is not None:
        vault = os.path.join(os.path.dirname(path), os.path.expanduser(vault))
    return Config(vault, said.get("pin_source"), tuple(modules))
