"""The PIV application: what the card does for each instruction, and who may ask for it (SP 800-73-4 part 2, 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.support.virtual_yubikey import keys
from tests.support.virtual_yubikey.administration import CARD_MANAGEMENT, CHALLENGE, DYNAMIC, RESPONSE, Administration
from tests.support.virtual_yubikey.apdu import (
    CONDITIONS,
    NO_INSTRUCTION,
    NO_REFERENCE,
    NO_SPACE,
    NOT_FOUND,
    SECURITY_STATUS,
    WRONG_DATA,
    WRONG_P1P2,
    Command,
    Refused,
    tlv,
    tlv_dict,
    tlvs,
)
from tests.support.virtual_yubikey.attestation import slot_certificate
from tests.support.virtual_yubikey.finger import CACHE_SECONDS, Finger
from tests.support.virtual_yubikey.references import FINGERPRINT, PIN, PUK, References, Session
from tests.support.virtual_yubikey.store import (
    DEFAULT_MANAGEMENT_KEY,
    DEFAULT_PIN,
    DEFAULT_PUK,
    Reference,
    Store,
    StoredKey,
)

VERIFY, CHANGE_REFERENCE, RESET_RETRY = 0x20, 0x24, 0x2C
GENERATE, AUTHENTICATE = 0x47, 0x87
GET_DATA, PUT_DATA = 0xCB, 0xDB
# Yubico's own (yubikit's module piv)
MOVE_KEY, GET_METADATA, GET_SERIAL, ATTEST, SET_PIN_RETRIES, RESET = 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB
GET_VERSION, IMPORT_KEY, SET_MANAGEMENT_KEY = 0xFD, 0xFE, 0xFF

ATTESTATION = 0xF9
SIGNATURE, CARD_AUTHENTICATION = 0x9C, 0x9E
USABLE_SLOTS = frozenset({0x9A, 0x9C, 0x9D, 0x9E, *range(0x82, 0x96)})
SLOTS = USABLE_SLOTS | {ATTESTATION}

PIN_NEVER, PIN_ONCE, PIN_ALWAYS = 1, 2, 3
TOUCH_NEVER, TOUCH_ALWAYS, TOUCH_CACHED = 1, 2, 3
PIN_POLICY, TOUCH_POLICY = 0xAA, 0xAB

DISCOVERY = 0x7E
# SP 800-73-4 part 1, table 2: fingerprints, printed information, facial image, iris images are read after the PIN
PIN_TO_READ = frozenset({0x5FC103, 0x5FC109, 0x5FC108, 0x5FC121})
OBJECT_SPACE = 51_200  # bytes of all objects together


class Piv:
    aid = bytes.fromhex("a000000308000010000100")

    def __init__(self, store: Store, finger: Finger) -> None:
        self._store, self._state, self._finger = store, store.state, finger
        self._references = References(store)
        self._administration = Administration(store, finger)
        self._session = Session()
        self._touched: dict[int, float] = {}  # slot: when, for the cached policy
        self._instructions = self._table()

    def select(self) -> bytes:
        """The application property template, as YubiKeys give it (.NET manual, SELECT)."""
        return bytes.fromhex("61114f0600001000010079074f05a000000308")

    def forget(self) -> None:
        """Power lost, card reset or another application selected. PIN and management key have to be proven anew.

        Selecting PIV once more does the same here: stricter than SP 800-73-4 part 2, 3.1.1. So with cached touches.
        """
        self._session = Session()
        self._administration.forget()
        self._touched.clear()

    def handle(self, command: Command) -> bytes:
        instruction = self._instructions.get(command.ins)
        if instruction is None:
            raise Refused(NO_INSTRUCTION)
        if command.ins not in (VERIFY, AUTHENTICATE):
            self._session.pin_just_verified = False  # "always": VERIFY comes immediately before the use of the key
        return instruction(command) or b""

    def _table(self) -> Mapping[int, Callable[[Command], bytes | None]]:
        firmware, references, administration = self._state.firmware, self._references, self._administration
        instructions: dict[int, Callable[[Command], bytes | None]] = {
            VERIFY: lambda command: references.verify(command, self._session),
            CHANGE_REFERENCE: lambda command: references.change(command, self._session),
            RESET_RETRY: lambda command: references.unblock(command, self._session),
            SET_PIN_RETRIES: lambda command: references.set_tries(command, self._session),
            SET_MANAGEMENT_KEY: lambda command: administration.set_key(command, self._session),
            AUTHENTICATE: self._authenticate,
            GENERATE: self._generate,
            IMPORT_KEY: self._import,
            GET_DATA: self._get_data,
            PUT_DATA: self._put_data,
            RESET: self._reset,
            GET_VERSION: lambda command: bytes(firmware),
        }
        if firmware.has_serial:
            instructions[GET_SERIAL] = lambda command: self._state.serial.to_bytes(4)
        if firmware.has_metadata:
            instructions[GET_METADATA] = self._metadata
        if firmware.has_attestation:
            instructions[ATTEST] = self._attest
        if firmware.has_move:
            instructions[MOVE_KEY] = self._move
        return instructions

    # Keys

    def _authenticate(self, command: Command) -> bytes:
        if command.p2 == CARD_MANAGEMENT:
            self._session.pin_just_verified = False
            return self._administration.authenticate(command, self._session)
        if command.p2 not in USABLE_SLOTS:
            raise Refused(WRONG_P1P2)
        stored = self._state.keys.get(command.p2)
        outer = tlv_dict(command.data)
        parts = tlv_dict(outer.pop(DYNAMIC, b""))
        asked = parts.pop(RESPONSE, None)
        if stored is None or stored.algorithm != command.p1 or outer or asked != b"" or len(parts) != 1:
            raise Refused(WRONG_DATA)
        self._permit(command.p2, stored)
        [(tag, data)] = parts.items()
        if tag not in (CHALLENGE, keys.EXPONENTIATION):
            raise Refused(WRONG_DATA)
        return tlv(DYNAMIC, tlv(RESPONSE, keys.used(stored, tag, data)))

    def _permit(self, slot: int, stored: StoredKey) -> None:
        just_verified, self._session.pin_just_verified = self._session.pin_just_verified, False
        if stored.pin_policy == PIN_ONCE and not self._session.pin_verified:
            raise Refused(SECURITY_STATUS)
        if stored.pin_policy == PIN_ALWAYS and not just_verified:
            raise Refused(SECURITY_STATUS)
        if stored.touch_policy == TOUCH_NEVER:
            return
        touched = self._touched.get(slot)
        cached = touched is not None and self._finger.clock() - touched < CACHE_SECONDS
        if stored.touch_policy == TOUCH_CACHED and cached:
            return
        if not self._finger.wait():
            raise Refused(SECURITY_STATUS)  # nobody touched in time: yubico-piv-tool calls it an authentication error
        self._touched[slot] = self._finger.clock()

    def _generate(self, command: Command) -> bytes:
        self._administrator()
        outer = tlv_dict(command.data)
        if command.p1 != 0 or command.p2 not in SLOTS:
            raise Refused(WRONG_P1P2)
        if set(outer) != {0xAC}:
            raise Refused(WRONG_DATA)
        wanted = tlv_dict(outer[0xAC])
        algorithm = wanted.pop(0x80, b"")
        if len(algorithm) != 1:
            raise Refused(WRONG_DATA)
        pin, touch = self._policies(command.p2, algorithm[0], wanted)
        key = keys.generate(algorithm[0])
        self._state.keys[command.p2] = StoredKey(algorithm[0], keys.encoded(key), pin, touch, True)
        self._touched.pop(command.p2, None)
        self._store.save()
        return tlv(0x7F49, keys.public_point(key))

    def _import(self, command: Command) -> None:
        self._administrator()
        if command.p2 not in SLOTS:
            raise Refused(WRONG_P1P2)
        parts = tlv_dict(command.data)
        policies = {tag: parts.pop(tag) for tag in (PIN_POLICY, TOUCH_POLICY) if tag in parts}
        pin, touch = self._policies(command.p2, command.p1, policies)
        key = keys.imported(command.p1, parts)
        self._state.keys[command.p2] = StoredKey(command.p1, keys.encoded(key), pin, touch, False)
        self._touched.pop(command.p2, None)
        self._store.save()

    def _policies(self, slot: int, algorithm: int, wanted: Mapping[int, bytes]) -> tuple[int, int]:
        if algorithm not in self._state.firmware.key_types or not set(wanted) <= {PIN_POLICY, TOUCH_POLICY}:
            raise Refused(WRONG_DATA)
        default = {SIGNATURE: PIN_ALWAYS, CARD_AUTHENTICATION: PIN_NEVER}.get(slot, PIN_ONCE)
        pin, touch = wanted.get(PIN_POLICY, b"\0"), wanted.get(TOUCH_POLICY, b"\0")
        if pin not in (b"\0", b"\1", b"\2", b"\3") or touch not in (b"\0", b"\1", b"\2", b"\3"):
            raise Refused(WRONG_DATA)
        return pin[0] or default, touch[0] or TOUCH_NEVER

    def _metadata(self, command: Command) -> bytes:
        """.NET manual, "Get metadata"."""
        state = self._state
        if command.p1 != 0:
            raise Refused(WRONG_P1P2)
        if command.p2 in (PIN, PUK):
            return _of_reference(*((state.pin, DEFAULT_PIN) if command.p2 == PIN else (state.puk, DEFAULT_PUK)))
        if command.p2 == CARD_MANAGEMENT:
            key = state.management
            default = key.value == DEFAULT_MANAGEMENT_KEY and key.algorithm == state.firmware.default_management_key
            touch = TOUCH_ALWAYS if key.touch else TOUCH_NEVER
            return tlv(0x01, bytes([key.algorithm])) + tlv(0x02, bytes([0, touch])) + tlv(0x05, bytes([default]))
        stored = state.keys.get(command.p2)
        if command.p2 == FINGERPRINT or stored is None:
            raise Refused(NO_REFERENCE)
        return (
            tlv(0x01, bytes([stored.algorithm]))
            + tlv(0x02, bytes([stored.pin_policy, stored.touch_policy]))
            + tlv(0x03, bytes([1 if stored.generated else 2]))
            + tlv(0x04, keys.public_point(keys.loaded(stored)))
        )

    def _attest(self, command: Command) -> bytes:
        """Only of keys made on the device (.NET manual, "Create attestation statement")."""
        stored = self._state.keys.get(command.p1)
        if command.p1 not in SLOTS or command.p2 != 0:
            raise Refused(WRONG_P1P2)
        if stored is None or not stored.generated:
            raise Refused(WRONG_DATA)
        return slot_certificate(self._state, command.p1, stored)

    def _move(self, command: Command) -> None:
        """P1 the new slot, or FF to delete; P2 the old one. The new slot must be empty (.NET API, MoveKeyCommand)."""
        self._administrator()
        if command.p2 not in SLOTS or command.p1 not in USABLE_SLOTS | {0xFF}:
            raise Refused(WRONG_P1P2)
        stored = self._state.keys.get(command.p2)
        if stored is None:
            raise Refused(NO_REFERENCE)
        if command.p1 != 0xFF:
            if command.p2 == ATTESTATION or command.p1 in self._state.keys:
                raise Refused(CONDITIONS)
            self._state.keys[command.p1] = stored
        del self._state.keys[command.p2]
        self._touched.pop(command.p2, None)
        self._store.save()

    # Data objects

    def _get_data(self, command: Command) -> bytes:
        number = _object_id(command, tlv_dict(command.data))
        if number in PIN_TO_READ and not self._session.pin_verified:
            raise Refused(SECURITY_STATUS)
        if number == DISCOVERY:
            return bytes.fromhex("7e124f0ba0000003080000100001005f2f024000")
        if number not in self._state.objects:
            raise Refused(NOT_FOUND)
        return tlv(0x53, self._state.objects[number])

    def _put_data(self, command: Command) -> None:
        """Replaces an object; an empty one ceases to be. At most 3,063 bytes fit the buffer."""
        self._administrator()
        fields = list(tlvs(command.data))
        if [tag for tag, _ in fields] != [0x5C, 0x53]:
            raise Refused(WRONG_DATA)
        number, value = _object_id(command, dict(fields[:1])), fields[1][1]
        if not 0x5F0000 <= number <= 0x5FFFFF:
            raise Refused(WRONG_DATA)
        others = sum(len(other) for at, other in self._state.objects.items() if at != number)
        if others + len(value) > OBJECT_SPACE:
            raise Refused(NO_SPACE)
        if value:
            self._state.objects[number] = value
        else:
            self._state.objects.pop(number, None)
        self._store.save()

    def _reset(self, command: Command) -> None:
        """Only when PIN and PUK are blocked (.NET manual, "Reset the PIV application")."""
        if self._state.pin.left or self._state.puk.left:
            raise Refused(CONDITIONS)
        self._state.reset_piv()
        self.forget()
        self._store.save()

    def _administrator(self) -> None:
        if not self._session.administrator:
            raise Refused(SECURITY_STATUS)


def _of_reference(reference: Reference, default: bytes) -> bytes:
    return (
        tlv(0x01, b"\xff")
        + tlv(0x05, bytes([reference.value == default]))
        + tlv(0x06, bytes([reference.total, reference.left]))
    )


def _object_id(command: Command, fields: Mapping[int, bytes]) -> int:
    if command.p1p2 != 0x3FFF:
        raise Refused(WRONG_P1P2)
    if set(fields) != {0x5C} or not 1 <= len(fields[0x5C]) <= 3:
        raise Refused(WRONG_DATA)
    return int.from_bytes(fields[0x5C])
