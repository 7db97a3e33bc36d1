"""Break-glass, the human procedure (docs/spec/breakglass.md): who asks, who consents, what then happens.

    desk.py       what the practice does: ceremony, rotation, drills, as ``Vault.breakglass``
    ceremony.py   custodians' tokens opened, and the re-key that brings them in
    requests.py   the requester's side, on a token that opens nothing yet
    approvals.py  the custodian's side, on another machine, without the vault
    recovery.py   approvals put together: one patient read, or the practice recovered
    drills.py     proof that a share is there, alone or put together
    journal.py    what requester and custodian did, on their own machine

Arithmetic is shamir.py, objects on tokens sharing.py, signed files statements.py, what counts consent.py.
"""

from __future__ import annotations
