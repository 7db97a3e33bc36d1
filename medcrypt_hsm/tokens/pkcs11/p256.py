"""P-256 public keys as PKCS#11 shows them, to DER SubjectPublicKeyInfo (RFC 5480): fixed bytes and a point."""

from __future__ import annotations

PARAMETERS = bytes.fromhex("06082a8648ce3d030107")  # the object identifier prime256v1, as CKA_EC_PARAMS
_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def spki(parameters: bytes, point: bytes) -> bytes | None:
    """91 bytes of DER, or None if this is no P-256 point. CKA_EC_POINT is an OCTET STRING; some tokens give it bare."""
    if parameters != PARAMETERS:
        return None
    if len(point) == 67 and point[:2] == b"\x04\x41":
        point = point[2:]
    if len(point) != 65 or point[0] != 4:
        return None
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    if x >= _P or y >= _P or (y * y - (x * x * x - 3 * x + _B)) % _P:
        return None
    return _SPKI + point
