"""A process that uses keys in host memory, step by step; tests look into its memory from outside (process_memory.py).

``keys``: three keys of a keyset and a mask of 32 bytes in hex, the keys XORed with it, so that no argument holds a key;
a message key wrapped under the first. ``token``: a token's URI, the name of a KEK on it, and a keyset wrapped by it.
After each step it prints the step's name and waits for a line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.tokens.access import open_token
from tests.support.softhsm import USER_PIN


def unmasked(masked: str, mask: str) -> Secret:
    return Secret((int(masked, 16) ^ int(mask, 16)).to_bytes(32, "big"))


def pause(step: str) -> None:
    sys.stdout.write(step + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


def use_keys(wrapping: str, mac: str, sealing: str, mask: str, message_key: str) -> None:
    pause("nothing yet")
    keys = HostKeys()
    handles = keys.handles((unmasked(wrapping, mask), unmasked(mac, mask), unmasked(sealing, mask)))
    pause("keyset")
    message = handles.wrapping.unwrap_aead(bytes.fromhex(message_key))
    for number in range(100):
        nonce = number.to_bytes(12, "big")
        for key in (message, handles.sealing):
            assert key.open(nonce, key.seal(nonce, b"text", b"aad"), b"aad") == b"text"
        handles.mac.mac(b"data")
        handles.wrapping.wrap(bytes(32))
        handles.wrapping.unwrap_mac(bytes.fromhex(message_key)).destroy()
    pause("used")
    message.destroy()
    pause("message key destroyed")
    keys.wipe()
    pause("closed")


def use_token(uri: str, kek: str, wrapped: str) -> None:
    pause("nothing yet")
    with open_token(uri, lambda info: USER_PIN) as token:
        handles = token.unwrap_keyset(kek, bytes.fromhex(wrapped), b"")
        handles.mac.mac(b"data")
        pause("unwrapped")
        for handle in (handles.wrapping, handles.mac, handles.sealing):
            handle.destroy()
        pause("destroyed")
        secrets = token.unwrap_keyset_to_host(kek, bytes.fromhex(wrapped), b"")
        pause("on the host")
        for secret in secrets:
            secret.wipe()
        pause("wiped")
        token.unwrap_keyset(kek, bytes.fromhex(wrapped), b"")
    pause("closed")


if __name__ == "__main__":
    uses: dict[str, Callable[..., None]] = {"keys": use_keys, "token": use_token}
    uses[sys.argv[1]](*sys.argv[2:])
