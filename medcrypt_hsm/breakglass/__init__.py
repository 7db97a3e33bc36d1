"""Break-glass, the human procedure (docs/spec/breakglass.md): who asks, who consents, what then happens.

    request ─▶ approvals ─▶ one patient read, or the practice recovered ─▶ a new ceremony

    plan.py        a ceremony as people agree on it beforehand
    ceremony.py    custodians' tokens opened, and the re-key that brings them in
    custodians.py  shares made, placed and proven, within that re-key
    drill.py       proof that a share is there, alone or put together
    request.py     the requester's side, on a token that opens nothing yet
    approve.py     the custodian's side, on another machine, without the vault
    recover.py     approvals put together: one patient read, or the practice recovered
    emergency.py   all that needs none of the vault's tokens, from files and PINs
    journal.py     what requester and custodian did, on their own machine

In: requests, approvals, custodians' tokens. Out: signed files; one patient's texts; a recovered vault. Arithmetic is
crypto/shamir.py, a share on its token lifecycle/shares.py, signed files vault/audit/statements.py, and what counts as
consent vault/audit/consent.py. It never imports the library's surface (api/), the agent or the command line.
"""
