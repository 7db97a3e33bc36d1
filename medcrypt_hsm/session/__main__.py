"""``python -m medcrypt_hsm.session FD``: what start.py starts. No command of a person's."""

from __future__ import annotations

import sys

from medcrypt_hsm.session.begin import begin

if __name__ == "__main__":
    begin(int(sys.argv[1]))
