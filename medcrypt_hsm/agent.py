"""``python -m medcrypt_hsm.agent FD``: what ``tokens/session/start.py`` starts. No command of a person's."""

from __future__ import annotations

import sys

from medcrypt_hsm.tokens.session.begin import begin
from medcrypt_hsm.vault import session_end

if __name__ == "__main__":
    begin(int(sys.argv[1]), session_end)
