"""Modules that are loaded when something in them is asked for: who reads one message waits for no other work's code.

Only for the two modules through which every command goes, library.py and opening.py; the names are imported for the
type checker, and for whoever reads the imports, beside the call.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """A module of this package, not loaded yet."""

    def __init__(self, name: str) -> None:
        self._name = f"medcrypt_hsm.{name}"

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
