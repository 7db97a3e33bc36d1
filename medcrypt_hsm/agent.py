"""``python -m medcrypt_hsm.session FD``: what ``starting.start`` starts. No command of a person's."""

from __future__ import annotations

import sys

from medcrypt_hsm.tokens.session.begin import begin

begin(int(sys.argv[1]))
