"""What a firmware can do, by its version."""

from __future__ import annotations

from dataclasses import dataclass

ATR_4 = bytes.fromhex("3bf81300008131fe15597562696b657934d4")  # yubico-piv-tool, lib/ykpiv.h
ATR_5 = bytes.fromhex("3bfd1300008131fe158073c021c057597562694b657940")

TRIPLE_DES, AES_128, AES_192, AES_256 = 0x03, 0x08, 0x0A, 0x0C
RSA_1024, RSA_2048, RSA_3072, RSA_4096 = 0x06, 0x07, 0x05, 0x16
P_256, P_384, ED25519, X25519 = 0x11, 0x14, 0xE0, 0xE1


@dataclass(frozen=True, order=True)
class Firmware:
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Firmware:
        """``5.4.3``. Raises ValueError."""
        major, minor, patch = (int(part) for part in text.split("."))
        return cls(major, minor, patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    def __bytes__(self) -> bytes:
        return bytes([self.major, self.minor, self.patch])

    def since(self, *version: int) -> bool:
        return (self.major, self.minor, self.patch) >= version

    @property
    def atr(self) -> bytes:
        return ATR_5 if self.major >= 5 else ATR_4

    @property
    def management_keys(self) -> dict[int, int]:
        """Algorithms of the management key, and their key lengths."""
        aes = {AES_128: 16, AES_192: 24, AES_256: 32} if self.since(5, 4) else {}
        return {TRIPLE_DES: 24, **aes}

    @property
    def default_management_key(self) -> int:
        return AES_192 if self.since(5, 7) else TRIPLE_DES

    @property
    def key_types(self) -> frozenset[int]:
        newer = {RSA_3072, RSA_4096, ED25519, X25519} if self.since(5, 7) else set()
        return frozenset({RSA_1024, RSA_2048, P_256, P_384, *newer})

    has_metadata = property(lambda self: self.since(5, 3))
    has_serial = property(lambda self: self.since(5, 0, 3))
    has_attestation = property(lambda self: self.since(4, 3))
    has_move = property(lambda self: self.since(5, 7))
    can_forget_pin = property(lambda self: self.since(5, 4, 3))  # VERIFY with P1 = FF
