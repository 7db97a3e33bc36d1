"""The library: what a program of somebody else's, and our own command line, does with a vault.

In: paths, URIs, PIN callbacks. Out: frozen values, or a ``MedcryptError``. ``Vault`` (vault.py) is the way in; each of
its parts (``vault.patients``, ``vault.months`` and so on) is a module here, loaded when it is asked for. ``base.py``
holds what they share: calls take turns, and whatever they need happens before and after.

Never imported here: cli, typer, ``sys.stdout``, ``os.environ``. ``medcrypt_hsm/__init__.py`` says what is exported.
"""
