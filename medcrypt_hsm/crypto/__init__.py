"""Keys and what is done with them, in host memory or behind a handle (docs/spec/notation.md; docs/spec/tokens.md,
"HPKE"; docs/spec/breakglass.md, "Shares").

In: bytes. Out: ``Secret``s, sealed bytes, shares, words. ``handles.py`` says what a key handle is, whoever keeps the
key; ``hostkeys.py`` are handles on keys in this process. Standards alone: HPKE (RFC 9180), X-Wing, Shamir over GF(256),
AES-GCM, AES key wrap, HMAC, P-256.

Never imported here: a token, a disk, a clock.
"""
