"""An open vault: verified before it is believed, and changed in one way only (docs/spec/vault.md, audit.md).

In: a store and an open token. Out: an ``Unlocked``; a body of writes becomes one signed commit. ``opening.py`` goes
from a name and a PIN to an ``Unlocked``, ``unlock.py`` is what must hold on the way, ``change.py`` the one way to
write. ``store/`` keeps rows and knows not what they mean; ``audit/`` verifies the log with public keys alone.

Never imported here: messages and all that stands above.
"""
