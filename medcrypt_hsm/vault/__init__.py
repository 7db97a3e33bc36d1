"""The vault: a file that nobody reads without its token, and that nobody alters unseen.

The format: docs/spec/vault.md and docs/spec/audit.md.

    store/, audit/            rows; and what they prove without any key
    choosing.py, opening.py   from a path and a PIN to an open token, and what a failure leaves noted (notes.py)
    unlock.py, anchoring.py   everything that must hold, then the token's one unwrap
    unlocked.py               the verified vault: change.py, clock.py, open_log.py
    keyset.py, ratchet.py, seen.py   what its keys are used for
    policy.py, log.py, ledger.py, export.py, inspection.py   its rules, and reading it whole

In: a store and an open token. Out: ``Unlocked``; and of a body of writes one signed commit. It never imports messages,
nor anything above.
"""
