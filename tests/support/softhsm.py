"""Throw-away SoftHSM2 tokens.

Plain code without pytest, so that helpers can import it; tests/conftest.py makes fixtures of it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import ROOT, installed

USER_PIN = "test-pin-4711"
SO_PIN = "test-so-pin-0815"
WRONG_PIN = "test-pin-wrong"


def softhsm_module() -> Path:
    return installed("SoftHSM2", "softhsm/libsofthsm2.so", "*/softhsm/libsofthsm2.so")


@dataclass(frozen=True)
class SoftHsm:
    """A SoftHSM2 directory of its own, as softhsm/make-tokens makes it. It holds one blank token more than was made."""

    directory: Path
    used_here: bool = False  # this process, too, has it as its SOFTHSM2_CONF

    @property
    def conf(self) -> Path:
        return self.directory / "softhsm2.conf"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to see these tokens."""
        return {"SOFTHSM2_CONF": str(self.conf)}

    def make_token(self, label: str | None = None, *, pin: str = USER_PIN, so_pin: str = SO_PIN) -> str:
        """A fresh token with a random label, or this one; its URI.

        Where this process uses the directory too, its open PKCS#11 sessions end: see ``see_new_tokens``.
        """
        if label is None:
            label = f"test-{secrets.token_hex(6)}"
            self._make_apart(label, pin=pin, so_pin=so_pin)
        else:
            self._make_tokens(label, pin=pin, so_pin=so_pin)
        if self.used_here and "pkcs11" in sys.modules:
            see_new_tokens()
        return f"pkcs11:token={label}?module-path={softhsm_module()}"

    def prepare(self) -> SoftHsm:
        """Make the directory and its configuration, without a token."""
        self._make_tokens()
        return self

    def _make_tokens(self, *labels: str, at: Path | None = None, pin: str = USER_PIN, so_pin: str = SO_PIN) -> None:
        env = {**os.environ, "MEDCRYPT_DEMO_PIN": pin, "MEDCRYPT_DEMO_SO_PIN": so_pin}
        command = [str(ROOT / "softhsm" / "make-tokens"), str(at or self.directory), *labels]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def _make_apart(self, label: str, **pins: str) -> None:
        """softhsm2-util reads every token of its directory: among hundreds, making one more takes a second."""
        with tempfile.TemporaryDirectory(prefix="medcrypt-tokens-") as empty:
            self._make_tokens(label, at=Path(empty), **pins)
            self._make_tokens()
            (token,) = Path(empty, "tokens").iterdir()
            shutil.move(token, self.directory / "tokens" / token.name)


def see_new_tokens() -> None:
    """Make this process see what another one did to the tokens. Its PKCS#11 sessions and objects become invalid."""
    import pkcs11

    # Loaded under another name of the same file, it would be initialised twice.
    names = [name for name in pkcs11._loaded if os.path.realpath(name) == os.path.realpath(softhsm_module())]
    pkcs11.lib((names or [str(softhsm_module())])[0]).reinitialize()
