"""A PKCS#11 token looked at past the program, for tests of that backend; and another program that disturbs it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass

from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module

KEK = "medcrypt kek 00 1"
AUDIT = "medcrypt audit 00"
ANCHOR = "medcrypt anchor 00"
SECRET = (b"w" * 32, b"m" * 32, b"s" * 32)


def pin(info: TokenInfo) -> str:
    return USER_PIN


def never(info: TokenInfo) -> str:
    raise AssertionError("asked for a PIN")


def session(token: Pkcs11Token) -> pkcs11.Session:
    return token._session


def the_key(token: Pkcs11Token, name: str = KEK, kind: ObjectClass = ObjectClass.SECRET_KEY) -> Any:
    (key,) = list(session(token).get_objects({Attribute.LABEL: name, Attribute.CLASS: kind}))
    return key


def import_key(token: Pkcs11Token, value: bytes, name: str = KEK, **uses: bool) -> Any:
    """Test set-up: a KEK that the host knows, which the program itself never makes."""
    return session(token).create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.LABEL: name,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.WRAP: True,
            Attribute.UNWRAP: True,
            **{Attribute[use.upper()]: value for use, value in uses.items()},
            Attribute.VALUE: value,
        }
    )


def directory_of(softhsm: SoftHsm, label: str) -> Path:
    """Where SoftHSM2 keeps this token."""
    tokens = (softhsm.directory / "tokens").iterdir()
    (directory,) = [path for path in tokens if label.encode() in (path / "token.object").read_bytes()]
    return directory


def outside_program(uri: str, *arguments: str) -> None:
    label = uri.removeprefix("pkcs11:token=").partition("?")[0]
    command = ["pkcs11-tool", "--module", str(softhsm_module()), "--token-label", label, "--login", "--pin", USER_PIN]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
