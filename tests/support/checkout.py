"""This checkout and the machine under it: where it lies, what scripts/setup installed, how long a run may be."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VECTOR_DIRECTORY = ROOT / "tests" / "vectors"
FULL = os.environ.get("MEDCRYPT_TEST_FULL") == "1"  # scripts/test --full


def installed(name: str, *places: str) -> Path:
    """A shared library of a Debian package. Its absence is an error of the set-up, never a reason to skip."""
    for place in places:
        for path in sorted(Path("/usr/lib").glob(place)):
            return path
    raise RuntimeError(f"{name} is not installed; run scripts/setup")
