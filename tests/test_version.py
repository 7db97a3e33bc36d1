"""One version, wherever it is written."""

from __future__ import annotations

import tomllib

import medcrypt_hsm
from medcrypt_hsm.version import VERSION
from tests.support.checkout import ROOT


def test_it_is_the_one_that_is_packaged() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert packaged == VERSION == medcrypt_hsm.__version__
