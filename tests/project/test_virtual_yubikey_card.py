"""The virtual YubiKey's card without a reader: driven by yubikit as a real one is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from yubikit.core import TRANSPORT, InvalidPinError, NotSupportedError
from yubikit.core.smartcard import SW, ApduError, SmartCardConnection
from yubikit.piv import (
    DEFAULT_MANAGEMENT_KEY,
    KEY_TYPE,
    MANAGEMENT_KEY_TYPE,
    OBJECT_ID,
    PIN_POLICY,
    SLOT,
    TOUCH_POLICY,
    PivSession,
)

from tests.support.virtual_yubikey.apdu import tlv
from tests.support.virtual_yubikey.card import Card
from tests.support.virtual_yubikey.finger import NEVER
from tests.support.virtual_yubikey.firmware import Firmware
from tests.support.virtual_yubikey.store import State, Store
from tests.support.yubikey import FIRMWARES, PIN, PUK, attestation_ca

WRONG = "99999999"
SHA256 = hashes.SHA256()


class Direct(SmartCardConnection):
    """yubikit's connection, to a card in this process."""

    def __init__(self, card: Card, transport: TRANSPORT = TRANSPORT.USB) -> None:
        self._card, self._transport = card, transport

    @property
    def transport(self) -> TRANSPORT:
        return self._transport  # over NFC yubikit sends short APDUs

    def send_and_receive(self, apdu: bytes) -> tuple[bytes, int]:
        answer = self._card.transmit(apdu)
        return answer[:-2], int.from_bytes(answer[-2:])

    def close(self) -> None:
        pass


def make_card(firmware: str = "5.7.4", path: Path | None = None) -> Card:
    state = State.factory(12345678, Firmware.parse(firmware))
    attestation_ca(firmware).install(state)
    card = Card(Store(state, path))
    card.finger.timeout = 0.05
    return card


def session(card: Card, *, admin: bool = False, pin: bool = False) -> PivSession:
    piv = PivSession(Direct(card))
    if admin:
        piv.authenticate(DEFAULT_MANAGEMENT_KEY)
    if pin:
        piv.verify_pin(PIN)
    return piv


def refused(sw: int, call: Callable[[], object]) -> None:
    with pytest.raises(ApduError) as caught:
        call()
    assert caught.value.sw == sw, f"{caught.value.sw:04X}"


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_keys_sign_and_agree(firmware: str) -> None:
    piv = session(make_card(firmware), admin=True, pin=True)
    for key_type, curve in [(KEY_TYPE.ECCP256, ec.SECP256R1()), (KEY_TYPE.ECCP384, ec.SECP384R1())]:
        public = piv.generate_key(SLOT.RETIRED1, key_type)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(piv.sign(SLOT.RETIRED1, key_type, b"message", SHA256), b"message", ec.ECDSA(SHA256))
        other = ec.generate_private_key(curve)
        assert piv.calculate_secret(SLOT.RETIRED1, other.public_key()) == other.exchange(ec.ECDH(), public)


def test_rsa_ed25519_and_x25519() -> None:
    piv = session(make_card("5.7.4"), admin=True, pin=True)
    public = piv.generate_key(SLOT.RETIRED2, KEY_TYPE.RSA2048)
    assert isinstance(public, rsa.RSAPublicKey)
    signature = piv.sign(SLOT.RETIRED2, KEY_TYPE.RSA2048, b"message", SHA256, padding.PKCS1v15())
    public.verify(signature, b"message", padding.PKCS1v15(), SHA256)
    piv.generate_key(SLOT.RETIRED3, KEY_TYPE.ED25519).verify(  # type: ignore[union-attr, call-arg]
        piv.sign(SLOT.RETIRED3, KEY_TYPE.ED25519, b"message", None), b"message"
    )
    mine = piv.generate_key(SLOT.RETIRED4, KEY_TYPE.X25519)
    assert isinstance(mine, x25519.X25519PublicKey)
    other = x25519.X25519PrivateKey.generate()
    assert piv.calculate_secret(SLOT.RETIRED4, other.public_key()) == other.exchange(mine)


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    card = make_card()
    piv = session(card, admin=True, pin=True)
    point = bytearray(_point(piv))
    point[-1] ^= 1
    use = tlv(0x7C, tlv(0x82) + tlv(0x85, bytes(point)))
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.protocol.send_apdu(0, 0x87, 0x11, 0x82, use))


def _point(piv: PivSession) -> bytes:
    piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256)
    return piv.get_slot_metadata(SLOT.RETIRED1).public_key_encoded[2:]


@pytest.mark.parametrize("size", [0, 33, 64])
def test_a_digest_fits_the_curve(size: int) -> None:
    piv = session(make_card(), admin=True, pin=True)
    piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256)
    use = tlv(0x7C, tlv(0x82) + tlv(0x81, bytes(size)))
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.protocol.send_apdu(0, 0x87, 0x11, 0x82, use))


def test_an_absent_key_and_another_algorithm_are_refused() -> None:
    piv = session(make_card(), admin=True, pin=True)
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.sign(SLOT.RETIRED1, KEY_TYPE.ECCP256, b"m", SHA256))
    piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP384)
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.sign(SLOT.RETIRED1, KEY_TYPE.ECCP256, b"m", SHA256))


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_wrong_pins_lock_and_the_puk_unblocks(firmware: str) -> None:
    card = make_card(firmware)
    piv = session(card)
    for left in (2, 1, 0):
        with pytest.raises(InvalidPinError) as caught:
            piv.verify_pin(WRONG)
        assert caught.value.attempts_remaining == left
        assert piv.get_pin_attempts() == left
    with pytest.raises(InvalidPinError) as caught:
        piv.verify_pin(PIN)
    assert caught.value.attempts_remaining == 0
    piv.unblock_pin(PUK, "654321")
    assert piv.get_pin_attempts() == 3
    piv.verify_pin("654321")


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_wrong_puks_lock_and_only_then_reset_works(firmware: str) -> None:
    card = make_card(firmware)
    piv = session(card, admin=True)
    piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256)
    piv.put_object(0x5F4D00, b"object")
    refused(SW.CONDITIONS_NOT_SATISFIED, lambda: piv.protocol.send_apdu(0, 0xFB, 0, 0))
    for left in (2, 1, 0):
        with pytest.raises(InvalidPinError) as caught:
            piv.unblock_pin(WRONG, "654321")
        assert caught.value.attempts_remaining == left
    refused(SW.CONDITIONS_NOT_SATISFIED, lambda: piv.protocol.send_apdu(0, 0xFB, 0, 0))  # the PIN is not blocked
    card.store.state.pin.left, card.store.state.puk.left = 0, 1
    refused(SW.CONDITIONS_NOT_SATISFIED, lambda: piv.protocol.send_apdu(0, 0xFB, 0, 0))  # nor here the PUK
    piv.reset()
    assert set(card.store.state.keys) == {SLOT.ATTESTATION}
    assert set(card.store.state.objects) == {OBJECT_ID.ATTESTATION}
    piv.verify_pin(PIN)
    piv.authenticate(DEFAULT_MANAGEMENT_KEY)


@pytest.mark.parametrize("new", ["12345", "", "\xff" * 4])
def test_a_new_pin_has_six_to_eight_characters(new: str) -> None:
    card = make_card()
    piv = session(card)
    padded = PIN.encode() + b"\xff\xff" + new.encode("latin-1").ljust(8, b"\xff")
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.protocol.send_apdu(0, 0x24, 0, 0x80, padded))
    piv.verify_pin(PIN)
    assert card.store.state.pin.left == 3


def test_tries_are_set_with_both_proofs_and_bring_back_factory_pins() -> None:
    piv = session(make_card())
    piv.change_pin(PIN, "654321")
    piv.change_puk(PUK, "87654321")
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: piv.set_pin_attempts(5, 8))
    piv.authenticate(DEFAULT_MANAGEMENT_KEY)
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: piv.set_pin_attempts(5, 8))
    piv.verify_pin("654321")
    piv.set_pin_attempts(5, 8)
    assert (piv.get_pin_metadata().total_attempts, piv.get_puk_metadata().total_attempts) == (5, 8)
    assert piv.get_pin_metadata().default_value
    assert piv.get_puk_metadata().default_value
    piv.verify_pin(PIN)
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.set_pin_attempts(0, 3))


@pytest.mark.parametrize("key_type", list(MANAGEMENT_KEY_TYPE))
def test_management_keys_of_each_kind(key_type: MANAGEMENT_KEY_TYPE) -> None:
    card = make_card("5.4.3")
    piv = session(card)
    new = bytes(range(1, key_type.key_len + 1))
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: piv.set_management_key(key_type, new))
    piv.authenticate(DEFAULT_MANAGEMENT_KEY)
    piv.set_management_key(key_type, new)
    again = session(card)
    assert again.management_key_type == key_type
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: again.authenticate(bytes(key_type.key_len)))
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: again.put_object(0x5F4D00, b"x"))
    again.authenticate(new)
    again.put_object(0x5F4D00, b"x")


def triple_des() -> Cipher[modes.ECB]:
    return Cipher(TripleDES(DEFAULT_MANAGEMENT_KEY), modes.ECB())  # noqa: S305 - as the standard has it


def test_a_witness_is_good_for_one_answer() -> None:
    card = make_card("5.4.3")
    piv = session(card)

    def send(*fields: bytes) -> bytes:
        return piv.protocol.send_apdu(0, 0x87, 0x03, 0x9B, tlv(0x7C, b"".join(fields)))

    witness = send(tlv(0x80))[4:]
    plain = triple_des().decryptor().update(witness)
    right, challenge = tlv(0x80, plain), tlv(0x81, bytes(8))
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: send(tlv(0x80, bytes(8)), challenge))
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: send(right, challenge))
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: piv.put_object(0x5F4D00, b"x"))


def test_single_authentication_answers_a_challenge() -> None:
    """Besides the mutual one (.NET manual, "Authenticate: management key")."""
    piv = session(make_card("5.4.3"))

    def send(field: bytes) -> bytes:
        return piv.protocol.send_apdu(0, 0x87, 0x03, 0x9B, tlv(0x7C, field))

    challenge = send(tlv(0x81))[4:]
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: send(tlv(0x82, challenge)))
    challenge = send(tlv(0x81))[4:]
    send(tlv(0x82, triple_des().encryptor().update(challenge)))
    piv.put_object(0x5F4D00, b"x")


def test_a_management_key_that_wants_a_touch() -> None:
    card = make_card()
    piv = session(card, admin=True)
    piv.set_management_key(MANAGEMENT_KEY_TYPE.AES192, DEFAULT_MANAGEMENT_KEY, require_touch=True)
    assert piv.get_management_key_metadata().touch_policy == TOUCH_POLICY.ALWAYS
    card.finger.touches_after(NEVER)
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: session(card, admin=True))
    card.finger.touches_after(0)
    session(card, admin=True)


@pytest.mark.parametrize(
    ("policy", "forgets_by"), [(PIN_POLICY.NEVER, None), (PIN_POLICY.ONCE, "reset"), (PIN_POLICY.ALWAYS, "use")]
)
def test_pin_policies(policy: PIN_POLICY, forgets_by: str | None) -> None:
    card = make_card()
    session(card, admin=True).generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256, pin_policy=policy)
    piv = session(card)

    def sign() -> bytes:
        return piv.sign(SLOT.RETIRED1, KEY_TYPE.ECCP256, b"m", SHA256)

    if forgets_by is None:
        sign()
        return
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, sign)
    piv.verify_pin(PIN)
    sign()
    if forgets_by == "use":
        refused(SW.SECURITY_CONDITION_NOT_SATISFIED, sign)
        piv.verify_pin(PIN)
        piv.get_pin_metadata()  # any other command in between
        refused(SW.SECURITY_CONDITION_NOT_SATISFIED, sign)
    else:
        sign()
        card.reset()
        piv = session(card)
        refused(SW.SECURITY_CONDITION_NOT_SATISFIED, sign)


def test_default_policies_are_those_of_the_slots() -> None:
    piv = session(make_card(), admin=True)
    wanted = {SLOT.AUTHENTICATION: PIN_POLICY.ONCE, SLOT.SIGNATURE: PIN_POLICY.ALWAYS, SLOT.CARD_AUTH: PIN_POLICY.NEVER}
    for slot, policy in wanted.items():
        piv.generate_key(slot, KEY_TYPE.ECCP256)
        metadata = piv.get_slot_metadata(slot)
        assert (metadata.pin_policy, metadata.touch_policy, metadata.generated) == (policy, TOUCH_POLICY.NEVER, True)


def test_touch_always_is_asked_each_time_and_cached_lasts_fifteen_seconds() -> None:
    card = make_card()
    piv = session(card, admin=True, pin=True)
    piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256, touch_policy=TOUCH_POLICY.ALWAYS)
    piv.generate_key(SLOT.RETIRED2, KEY_TYPE.ECCP256, touch_policy=TOUCH_POLICY.CACHED)
    piv.generate_key(SLOT.RETIRED3, KEY_TYPE.ECCP256, touch_policy=TOUCH_POLICY.NEVER)

    def touches(slot: SLOT) -> int:
        before = card.finger.asked
        piv.sign(slot, KEY_TYPE.ECCP256, b"m", SHA256)
        return card.finger.asked - before

    assert [touches(SLOT.RETIRED1) for _ in range(2)] == [1, 1]
    assert [touches(SLOT.RETIRED2) for _ in range(3)] == [1, 0, 0]
    card.finger.shift += 14
    assert touches(SLOT.RETIRED2) == 0
    card.finger.shift += 1.5
    assert touches(SLOT.RETIRED2) == 1
    assert touches(SLOT.RETIRED3) == 0


def test_a_finger_that_is_late_absent_or_comes_now() -> None:
    card = make_card()
    piv = session(card, admin=True, pin=True)
    piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256, touch_policy=TOUCH_POLICY.ALWAYS)

    def sign() -> bytes:
        return piv.sign(SLOT.RETIRED1, KEY_TYPE.ECCP256, b"m", SHA256)

    card.finger.touches_after(0.02)
    assert sign()
    card.finger.touches_after(0.06)  # the card waits 0.05 s
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, sign)
    card.finger.touches_after(NEVER)
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, sign)
    card.finger.timeout = 30
    thread = threading.Thread(target=touch_when_asked, args=(card,))
    thread.start()
    assert sign()
    thread.join()


def touch_when_asked(card: Card) -> None:
    assert card.finger.until_waiting(10)
    card.finger.touch()


def test_without_pin_nobody_is_asked_for_a_touch() -> None:
    card = make_card()
    piv = session(card, admin=True)
    piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256, touch_policy=TOUCH_POLICY.ALWAYS)
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: piv.sign(SLOT.RETIRED1, KEY_TYPE.ECCP256, b"m", SHA256))
    assert card.finger.asked == 0


def test_data_objects_and_who_may_read_and_write_them() -> None:
    piv = session(make_card())
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: piv.put_object(0x5F4D00, b"x"))
    piv.authenticate(DEFAULT_MANAGEMENT_KEY)
    for number in (0x5F4D00, OBJECT_ID.PRINTED):
        piv.put_object(number, b"value")
    assert piv.get_object(0x5F4D00) == b"value"
    refused(SW.SECURITY_CONDITION_NOT_SATISFIED, lambda: piv.get_object(OBJECT_ID.PRINTED))
    piv.verify_pin(PIN)
    assert piv.get_object(OBJECT_ID.PRINTED) == b"value"
    refused(SW.FILE_NOT_FOUND, lambda: piv.get_object(0x5F4D01))
    piv.put_object(0x5F4D00)
    refused(SW.FILE_NOT_FOUND, lambda: piv.get_object(0x5F4D00))
    assert piv.get_object(OBJECT_ID.DISCOVERY).startswith(bytes.fromhex("4f0ba000000308"))


def test_objects_fill_the_buffer_and_the_space_and_no_more() -> None:
    card = make_card()
    piv = session(card, admin=True)

    def put(number: int, size: int) -> None:
        """Chained in short APDUs, which may be longer than yubikit's extended ones."""
        data = tlv(0x5C, number.to_bytes(3)) + tlv(0x53, bytes(size))
        parts = [data[at : at + 255] for at in range(0, len(data), 255)]
        for part in parts[:-1]:
            piv.protocol.send_apdu(0x10, 0xDB, 0x3F, 0xFF, part)
        piv.protocol.send_apdu(0, 0xDB, 0x3F, 0xFF, parts[-1])

    put(0x5F4D00, 3063)
    assert piv.get_object(0x5F4D00) == bytes(3063)
    refused(SW.WRONG_LENGTH, lambda: put(0x5F4D00, 3064))
    while sum(map(len, card.store.state.objects.values())) <= 51_200 - 3063:
        put(0x5F4D00 + len(card.store.state.objects), 3063)
    refused(SW.NO_SPACE, lambda: put(0x5F4DFF, 3063))


@pytest.mark.parametrize("transport", [TRANSPORT.USB, TRANSPORT.NFC])
def test_long_commands_and_answers_in_extended_and_in_chained_apdus(transport: TRANSPORT) -> None:
    card = make_card()
    piv = PivSession(Direct(card, transport))
    piv.authenticate(DEFAULT_MANAGEMENT_KEY)
    for size in (1, 127, 128, 246, 247, 255, 256, 257, 511, 1000, 3000):
        value = (bytes(range(256)) * 12)[:size]
        piv.put_object(0x5F4D00, value)
        assert piv.get_object(0x5F4D00) == value


def test_another_command_ends_a_chain() -> None:
    card = make_card()
    session(card, admin=True)
    assert card.transmit(bytes.fromhex("10db3fff055c035f4d00")) == b"\x90\x00"
    assert card.transmit(bytes.fromhex("0020008008313233343536ffff")) == b"\x90\x00"
    assert card.transmit(bytes.fromhex("00db3fff03530141")) == b"\x6a\x80"  # its first part is forgotten
    assert card.transmit(bytes.fromhex("00c00000")) == b"\x69\x85"


def test_moving_and_deleting_keys_since_5_7() -> None:
    piv = session(make_card("5.7.4"), admin=True, pin=True)
    public = piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256)
    piv.generate_key(SLOT.RETIRED2, KEY_TYPE.ECCP256)
    refused(SW.CONDITIONS_NOT_SATISFIED, lambda: piv.move_key(SLOT.RETIRED1, SLOT.RETIRED2))
    piv.move_key(SLOT.RETIRED1, SLOT.RETIRED3)
    assert piv.get_slot_metadata(SLOT.RETIRED3).public_key == public
    refused(SW.REFERENCE_DATA_NOT_FOUND, lambda: piv.get_slot_metadata(SLOT.RETIRED1))
    piv.delete_key(SLOT.RETIRED3)
    refused(SW.REFERENCE_DATA_NOT_FOUND, lambda: piv.delete_key(SLOT.RETIRED3))
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.sign(SLOT.RETIRED3, KEY_TYPE.ECCP256, b"m", SHA256))
    old = session(make_card("5.4.3"), admin=True)
    old.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256)
    refused(SW.INVALID_INSTRUCTION, lambda: old.protocol.send_apdu(0, 0xF6, 0xFF, 0x82))


def test_an_imported_key_signs_and_is_not_attested() -> None:
    piv = session(make_card(), admin=True, pin=True)
    own = ec.generate_private_key(ec.SECP256R1())
    piv.put_key(SLOT.RETIRED1, own)
    own.public_key().verify(piv.sign(SLOT.RETIRED1, KEY_TYPE.ECCP256, b"m", SHA256), b"m", ec.ECDSA(SHA256))
    assert not piv.get_slot_metadata(SLOT.RETIRED1).generated
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.attest_key(SLOT.RETIRED1))
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.attest_key(SLOT.RETIRED2))


@pytest.mark.parametrize(("firmware", "length"), [("4.3.5", 3), ("5.4.3", 3), ("5.7.3", 3), ("5.7.4", 5)])
def test_attestation_chains_of_both_shapes(firmware: str, length: int) -> None:
    ca = attestation_ca(firmware)
    piv = session(make_card(firmware), admin=True)
    public = piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256, touch_policy=TOUCH_POLICY.CACHED)
    certificate, f9 = piv.attest_key(SLOT.RETIRED1), piv.get_certificate(SLOT.ATTESTATION)
    chain = [certificate, f9, *reversed(ca.between), ca.root]
    assert len(chain) == length
    for child, parent in zip(chain, [*chain[1:], ca.root], strict=True):
        child.verify_directly_issued_by(parent)
    assert certificate.public_key() == public
    values = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    prefix = "1.3.6.1.4.1.41482.3"
    assert values[f"{prefix}.3"] == bytes(int(part) for part in firmware.split("."))
    assert values[f"{prefix}.7"] == bytes.fromhex("020400bc614e")  # 12345678
    assert values[f"{prefix}.8"] == bytes([PIN_POLICY.ONCE, TOUCH_POLICY.CACHED])
    assert values.get(f"{prefix}.9") == (None if firmware.startswith("4") else b"\x01")
    early = not any(extension.oid == x509.BasicConstraints.oid for extension in f9.extensions)
    assert early == firmware.startswith("4")


def test_firmware_4_3_knows_neither_metadata_nor_serial_nor_aes() -> None:
    card = make_card("4.3.5")
    piv = session(card, admin=True)
    for instruction, p2 in ((0xF7, 0x80), (0xF8, 0), (0xF6, 0x82)):
        code = instruction
        refused(SW.INVALID_INSTRUCTION, lambda code=code, p2=p2: piv.protocol.send_apdu(0, code, 0, p2))  # type: ignore[misc]
    with pytest.raises(NotSupportedError):
        piv.get_slot_metadata(SLOT.RETIRED1)
    aes = b"\x08" + tlv(0x9B, bytes(16))
    refused(SW.INCORRECT_PARAMETERS, lambda: piv.protocol.send_apdu(0, 0xFF, 0xFF, 0xFF, aes))


def test_a_try_is_on_disk_before_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    card = make_card("5.4.3", path)
    with pytest.raises(InvalidPinError):
        session(card).verify_pin(WRONG)
    assert Store.load(path).state.pin.left == 2
    piv = session(card, admin=True)
    public = piv.generate_key(SLOT.RETIRED1, KEY_TYPE.ECCP256)
    piv.put_object(0x5F4D00, b"object")
    again = session(Card(Store.load(path)), pin=True)
    assert again.get_slot_metadata(SLOT.RETIRED1).public_key == public
    assert again.get_object(0x5F4D00) == b"object"
    assert again.get_serial() == 12345678
