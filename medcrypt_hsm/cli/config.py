"""The config file: ``medcrypt/config.toml`` in the user's config directory, or where MEDCRYPT_CONFIG says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from medcrypt_hsm.errors import UsageError

VARIABLE = "MEDCRYPT_CONFIG"


class Config(NamedTuple):
    """What a config file may say. Everything is optional."""

    vault: str | None = None
    pin_source: str | None = None
    pkcs11_modules: tuple[str, ...] = ()


def load() -> Config:
    """Raises UsageError for a file that cannot be read or says something unknown."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named)
    else:
        from platformdirs import user_config_path

        path = user_config_path("medcrypt") / "config.toml"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if named:
            raise UsageError(f"there is no config file {path}", f"make it, or unset {VARIABLE}") from None
        return Config()
    except OSError as exc:
        raise UsageError(f"the config file {path} cannot be read ({exc.strerror})", "check its owner and mode") from exc
    return _parse(text, path)


def _parse(text: bytes, path: Path) -> Config:
    import tomllib

    hint = 'it may say: vault = "…", pin_source = "…", pkcs11_modules = ["…"]'
    try:
        said = tomllib.loads(text.decode())
    except ValueError as exc:  # tomllib's and UTF-8's errors are both
        raise UsageError(f"the config file {path} is not TOML: {exc}", hint) from exc
    if unknown := sorted(set(said) - set(Config._fields)):
        raise UsageError(f"the config file {path} says {unknown[0]!r}, which means nothing", hint)
    for key in ("vault", "pin_source"):
        if not isinstance(said.get(key, ""), str):
            raise UsageError(f"{key} in the config file {path} must be a text", hint)
    modules = said.get("pkcs11_modules", [])
    if not (isinstance(modules, list) and all(isinstance(module, str) for module in modules)):
        raise UsageError(f"pkcs11_modules in the config file {path} must be a list of texts", hint)
    vault = said.get("vault")
    if vault is not None:
        vault = str(path.parent / Path(vault).expanduser())
    return Config(vault, said.get("pin_source"), tuple(modules))
