"""The YubiKey backend: the PIV application, spoken to with yubikit over PC/SC (docs/spec/tokens.md, 'YubiKey').

    uri.py         ``yubikey:SERIAL``
    pcsc.py        readers and exclusive connections: the only user of pyscard
    connection.py  ``Card``: such a connection for yubikit, and one table from foreign errors to ours
    discovery.py   which YubiKeys there are, what they say of themselves, and the one that a URI names
    directory.py   names and the slots and objects that they stand for: bytes only
    slots.py       the key in a slot: what the device says of it, made, used, destroyed
    storage.py     the directory and small objects on the card
    contents.py    what of ours is on the card by name: found, made, and destroyed with proof
    login.py       PIN asked for and sent once, the management key given
    token.py       ``YubikeyToken``: the ``Token`` protocol
    setup.py       factory state to ready, PIN changed and unblocked

Nothing is imported here: a URI can be read, and a machine without readers looked at, without yubikit.
"""

from __future__ import annotations
