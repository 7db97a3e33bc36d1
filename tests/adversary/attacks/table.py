"""The attacks, one row each: who tries what, which step finds it, and in which words. To add one, add a row.

The runner is test_attacks.py: for each row it tries everything that a practice does.
"""

from __future__ import annotations

from tests.adversary.attacks.on_database import DATABASE
from tests.adversary.attacks.on_log import CHAIN, LOG
from tests.adversary.attacks.on_trust import ANCHOR, KEYS, TRUST

AT_UNLOCK = (*LOG, *CHAIN, *TRUST, *ANCHOR, *KEYS, *DATABASE)
