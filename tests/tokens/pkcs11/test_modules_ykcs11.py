"""A YubiKey that is met through Yubico's own PKCS#11 module is answered with the URI to use instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import installed
from tests.support.command_line import CommandLine


@pytest.fixture
def by_ykcs11(medcrypt: CommandLine, yubikey: Callable[..., Any]) -> CommandLine:
    yubikey("5.4.3", serial=12345678)
    medcrypt.env["MEDCRYPT_PKCS11_MODULE"] = str(installed("ykcs11", "*/libykcs11.so.2"))
    return medcrypt


def test_it_is_listed_with_what_to_use(by_ykcs11: CommandLine) -> None:
    tokens = by_ykcs11("--json", "token", "list").json["tokens"]
    (shown,) = [token for token in tokens if token["uri"].startswith("pkcs11:")]
    assert shown["manufacturer"].startswith("Yubico")
    assert shown["problem"] == "a YubiKey: use yubikey:12345678"
    assert "use yubikey:12345678" in by_ykcs11("token", "list").stdout


@pytest.mark.parametrize(
    "command", [("token", "check"), ("token", "pin"), ("vault", "create", "--token")], ids=["check", "pin", "create"]
)
def test_it_is_not_opened(by_ykcs11: CommandLine, command: tuple[str, ...], tmp_path: Path) -> None:
    uri = "pkcs11:serial=12345678"
    arguments = [*command[:-1], "--token", f"doctor={uri}"] if command[-1] == "--token" else [*command, uri]
    by_ykcs11.env["MEDCRYPT_VAULT"] = str(tmp_path / "vault.db")
    error = by_ykcs11("--json", *arguments, code=3).error
    assert error["error"] == "token-unfit"
    assert "is a YubiKey" in error["message"]
    assert error["hint"] == "use 'yubikey:12345678'"
    assert not list(tmp_path.glob("vault.db*"))
