"""What this process keeps of the smart card readers, and lets go of when the other backend asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medcrypt_hsm.tokens.access import list_tokens, open_token
from tests.support.checkout import ROOT
from tests.support.ready_yubikey import pin, ready
from tests.support.yubikey import YubiKeys


def test_what_is_in_this_program_does_not_stand_in_the_way(yubikey: YubiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PKCS#11 module that knows smart cards takes every reader when it is loaded."""
    opensc = str(next(Path("/usr/lib").glob("*/opensc-pkcs11.so")))  # Debian: opensc-pkcs11
    key = ready(yubikey())
    assert [info for info in list_tokens([opensc]) if info.uri.startswith("pkcs11:")]
    open_token(key.uri, pin).close()


def run(program: str) -> list[str]:
    """What a process of its own prints: what a module registers when it is imported stays in this one."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_everything_that_may_be_held_is_let_go() -> None:
    assert run("""
from medcrypt_hsm import tokens
print(tokens.let_go_of_readers())
tokens.may_hold_readers(lambda: print("one"))
tokens.may_hold_readers(lambda: print("two"))
print(tokens.let_go_of_readers())
""") == ["False", "one", "two", "True"]


def test_the_yubikey_backend_knows_no_other_and_nothing_can_be_let_go() -> None:
    assert run("""
import sys
from medcrypt_hsm import tokens
from medcrypt_hsm.tokens.yubikey import discovery, setup, token
print(tokens.let_go_of_readers(), [name for name in sys.modules if "pkcs11" in name])
""") == ["False []"]


def test_the_pkcs11_backend_says_how_its_modules_are_let_go() -> None:
    assert run("""
from medcrypt_hsm import tokens
from medcrypt_hsm.tokens.pkcs11 import modules
print(tokens.let_go_of_readers())
""") == ["True"]
