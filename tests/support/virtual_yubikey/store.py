"""What a card remembers without power: one JSON file, replaced as a whole before a command is answered."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.virtual_yubikey.firmware import Firmware

DEFAULT_PIN, DEFAULT_PUK = b"123456\xff\xff", b"12345678"
DEFAULT_MANAGEMENT_KEY = bytes.fromhex("010203040506070801020304050607080102030405060708")


@dataclass
class Reference:
    """The PIN or the PUK, padded to 8 bytes with FF (SP 800-73-4 part 2, 2.4.3)."""

    value: bytes = field(repr=False)
    total: int = 3
    left: int = 3


@dataclass
class ManagementKey:
    algorithm: int
    value: bytes = field(default=DEFAULT_MANAGEMENT_KEY, repr=False)
    touch: bool = False


@dataclass
class StoredKey:
    """An asymmetric key: PKCS #8 in DER, and its policies as the Yubico tags AA and AB number them."""

    algorithm: int
    private: bytes = field(repr=False)
    pin_policy: int
    touch_policy: int
    generated: bool


@dataclass
class State:
    serial: int
    firmware: Firmware
    pin: Reference
    puk: Reference
    management: ManagementKey
    keys: dict[int, StoredKey] = field(default_factory=dict)  # by slot
    objects: dict[int, bytes] = field(default_factory=dict)  # by object id: what stands in tag 53
    form_factor: int = 0x01  # USB-A keychain

    @classmethod
    def factory(cls, serial: int, firmware: Firmware) -> State:
        """As it comes out of the box, but for the attestation key."""
        management = ManagementKey(firmware.default_management_key)
        return cls(serial, firmware, Reference(DEFAULT_PIN), Reference(DEFAULT_PUK), management)

    def reset_piv(self) -> None:
        """Everything of the PIV application but the attestation key and its certificate."""
        new = State.factory(self.serial, self.firmware)
        self.pin, self.puk, self.management = new.pin, new.puk, new.management
        self.keys = {slot: key for slot, key in self.keys.items() if slot == 0xF9}
        self.objects = {number: value for number, value in self.objects.items() if number == 0x5FFF01}


class Store:
    """A state and, unless it lives in memory only, its file."""

    def __init__(self, state: State, path: Path | None = None) -> None:
        self.state, self.path = state, path

    @classmethod
    def load(cls, path: Path) -> Store:
        return cls(_decoded(json.loads(path.read_text())), path)

    def save(self) -> None:
        if self.path is None:
            return
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(_encoded(self.state), indent=1))
        os.replace(temporary, self.path)


def _encoded(state: State) -> dict[str, Any]:
    return {
        "serial": state.serial,
        "firmware": str(state.firmware),
        "form_factor": state.form_factor,
        "pin": [state.pin.value.hex(), state.pin.total, state.pin.left],
        "puk": [state.puk.value.hex(), state.puk.total, state.puk.left],
        "management": [state.management.algorithm, state.management.value.hex(), state.management.touch],
        "keys": {
            f"{slot:02X}": [key.algorithm, key.private.hex(), key.pin_policy, key.touch_policy, key.generated]
            for slot, key in state.keys.items()
        },
        "objects": {f"{number:06X}": value.hex() for number, value in state.objects.items()},
    }


def _decoded(data: dict[str, Any]) -> State:
    def reference(value: str, total: int, left: int) -> Reference:
        return Reference(bytes.fromhex(value), total, left)

    algorithm, value, touch = data["management"]
    return State(
        data["serial"],
        Firmware.parse(data["firmware"]),
        reference(*data["pin"]),
        reference(*data["puk"]),
        ManagementKey(algorithm, bytes.fromhex(value), touch),
        {int(slot, 16): StoredKey(key[0], bytes.fromhex(key[1]), *key[2:]) for slot, key in data["keys"].items()},
        {int(number, 16): bytes.fromhex(value) for number, value in data["objects"].items()},
        data["form_factor"],
    )
