"""What a device says of its keys, and how far it is believed (docs/spec/attestation.md).

In: an open token, certificates. Out: a grade (``device-attested`` and so on) and the reasons in words. ``vendor.py``
knows what makers publish, ``certificates.py`` reads and checks chains, ``grades.py`` judges.

Never imported here: a brand's own code, a vault.
"""
