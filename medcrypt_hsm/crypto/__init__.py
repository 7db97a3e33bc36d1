"""Cryptography (docs/spec/notation.md; docs/spec/tokens.md, "HPKE"; docs/spec/breakglass.md, "Shares").

    secret.py   bytes in locked memory that can be wiped      words.py    a fingerprint as words that can be read aloud
    handles.py  what can be done with a key that nobody sees  hostkeys.py handles on keys in locked host memory
    p256.py     public keys and signatures                    hpke.py     sealed to a P-256 key
    xwing.py    sealed to a break-glass key                   shamir.py   a secret in shares
    gcm.py      AES-GCM over buffers

In: bytes. Out: ``Secret``, handles, sealed bytes. It never sees a disk, a device or a clock.
"""
