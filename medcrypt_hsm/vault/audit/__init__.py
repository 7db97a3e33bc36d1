"""The log, verified without a token (docs/spec/audit.md).

In: rows of the store and public keys. Out: a verified ``Chain`` and ``TrustState``, or ``AuditBroken`` with the entry
that is wrong. ``entries.py`` is an entry's bytes, ``chain.py`` what follows from one entry after the other,
``trust.py`` what the log has made of tokens, months and custodians, ``verify.py`` all of it together. ``actions.py``
lists every action that an entry may tell of.

Never imported here: tokens; of vault/ only ``store``.
"""
