"""Break-glass, the human procedure (docs/spec/breakglass.md): who asks, who consents, what then happens.

    emergency.py   what needs none of the vault's tokens: request, approve, drill, decrypt, recover
    ceremony.py    custodians' tokens opened, and the re-key that brings them in
    custodians.py  new custodians: their shares made, and written to their tokens
    plan.py        a ceremony as people agree on it beforehand
    request.py     the requester's side, on a token that opens nothing yet
    approve.py     the custodian's side, on another machine, without the vault
    recover.py     approvals put together: one patient read, or the practice recovered
    drill.py       proof that a share is there, alone or put together
    journal.py     what requester and custodian did, on their own machine

In: requests, approvals, custodians' tokens, an open vault. Out: signed files, one patient's texts, a recovered vault.
Never imported here: ``api``, ``cli``, the agent. Arithmetic is crypto/shamir.py, objects on tokens lifecycle/shares.py,
signed files vault/audit/statements.py, what counts vault/audit/consent.py.
"""
