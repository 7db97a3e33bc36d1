"""The audit log, and what it makes of trust, as anybody can read it without a token (docs/spec/audit.md).

In: rows of entries and of the trust state, and public keys. Out: a verified chain and the trust state, or AuditBroken.

Bytes of an entry: entries. One entry after the other: chain, with signers, re-keys and uses of break-glass. Over a
file: walk, verify. Whom the vault trusts: trust, trust_custody, by the tables of fields. Break-glass: rules,
statements, consent. What leaves the file: anchors, checkpoints, filter. Names of actions: actions.

Imports crypto and, of vault, store alone; never tokens: a log is verified without one.
"""
