"""What the program does, for programs: ``Vault``, and its parts.

In: paths, token URIs, PIN callbacks, texts and files from strangers. Out: frozen values; MedcryptError, and
RuntimeError for a vault that was closed. Every name that a method takes or returns is exported by ``medcrypt_hsm``.

``vault.py`` is the way in, and holds the two verbs that are used all day; each part (``patients.py``, ``months.py``,
``files.py``, ``chats.py``, ``log.py``, ``tokens.py``, ``holds.py``, ``custodians.py``) is loaded when it is asked for.
``base.py`` says what all methods have in common, ``making.py`` makes and restores vaults, ``status.py`` tells how one
stands. What needs no open vault stands beside them: ``rehearsal.py`` rehearses a ceremony.

Never imported here: typer, ``sys.stdout``, ``os.environ`` (but for the rehearsal's throw-away tokens), ``cli``.
"""
