"""Was a key made on the token, and who says so? (docs/spec/attestation.md)

    grades.py        the grade of a key, from what the token claims and shows: no brand
    vendor.py        the vendor's certificates that count, and certificates as files
    certificates.py  a YubiKey's certificates, parsed strictly and followed to a pinned root

In: an open token, or certificates in files. Out: a grade with its reasons. No network. It never imports a vault.
"""
