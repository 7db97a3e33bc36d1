"""The audit log, and what it makes of trust, as anybody can read it without a token (docs/spec/audit.md).

In: rows of entries and of the trust state, and public keys. Out: a verified chain and the trust state, or AuditBroken.

    entries.py       an entry's bytes, hashes and heads         actions.py  every action, in one table
    chain.py         the log followed entry by entry, with chain_signers.py, chain_rekeys.py and chain_uses.py
    walk.py          a log followed as others extend it         verify.py   a whole log verified with public keys
    trust.py         whom the vault trusts; trust_custody.py: who can open it in an emergency
    fields.py        the fields of rows and statements, read, written and checked by one table each
    rules.py         the rules of break-glass, by name          statements.py  requests, approvals and drills, signed
    consent.py       what makes a break-glass entry count       checkpoints.py, filter.py  what leaves the log

Imports crypto and, of vault, store alone; never tokens: a log is verified without one.
"""
