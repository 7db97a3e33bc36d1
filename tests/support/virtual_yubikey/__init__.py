"""A YubiKey made of Python: an ISO 7816-4 card with the Management, OTP and PIV applications, for a real pcscd.

``python -m tests.support.virtual_yubikey`` runs one, ``tests/support/yubikey.py`` those of tests. The way of an APDU:
``vpcd`` (frames from pcscd) → ``reader`` → ``card`` (which application) → ``apdu`` (chaining) → ``management`` or
``piv`` → ``store`` (state on disk). It follows NIST SP 800-73-4 and what Yubico publishes of its own commands:
https://docs.yubico.com/yesdk/users-manual/application-piv/apdu/ ("the .NET manual" in this package) and the sources of
yubikit and yubico-piv-tool. Where those are silent, the answer is the stricter one, and a comment says so.
"""
