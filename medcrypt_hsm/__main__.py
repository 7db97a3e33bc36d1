"""``python -m medcrypt_hsm`` is ``medcrypt``."""

from __future__ import annotations

from medcrypt_hsm.cli import enter

if __name__ == "__main__":
    enter()
