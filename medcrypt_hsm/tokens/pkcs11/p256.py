"""P-256 public keys as PKCS#11 shows them, to points."""

from __future__ import annotations

PARAMETERS = bytes.fromhex("06082a8648ce3d030107")  # the object identifier prime256v1, as CKA_EC_PARAMS
GENERATOR = bytes.fromhex(  # SP 800-186, section 3.2.1.3: times a private key it is the public key
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def point(parameters: bytes, shown: bytes) -> bytes | None:
    """65 bytes, or None if this is no P-256 point. CKA_EC_POINT is an OCTET STRING; some tokens give it bare."""
    if parameters != PARAMETERS:
        return None
    if len(shown) == 67 and shown[:2] == b"\x04\x41":
        shown = shown[2:]
    if len(shown) != 65 or shown[0] != 4:
        return None
    x, y = int.from_bytes(shown[1:33], "big"), int.from_bytes(shown[33:], "big")
    if x >= _P or y >= _P or (y * y - (x * x * x - 3 * x + _B)) % _P:
        return None
    return shown
