"""The virtual YubiKey's card answers malformed commands as the standard says, and whatever else is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_yubikey.apdu import tlv
from tests.support.virtual_yubikey.card import Card
from tests.support.virtual_yubikey.firmware import Firmware
from tests.support.virtual_yubikey.store import State, Store
from tests.support.yubikey import attestation_ca

PIV_AID = bytes.fromhex("a000000308")
VERIFY = bytes.fromhex("0020008008") + b"123456\xff\xff"


def selected_card(firmware: str = "5.7.4") -> Card:
    state = State.factory(12345678, Firmware.parse(firmware))
    attestation_ca(firmware).install(state)
    card = Card(Store(state))
    card.finger.timeout = 0
    assert card.transmit(bytes.fromhex("00a4040005") + PIV_AID)[-2:] == b"\x90\x00"
    return card


@pytest.mark.parametrize(
    ("raw", "sw"),
    [
        ("", 0x6700),
        ("00a404", 0x6700),
        ("00a4040005a0000003", 0x6700),  # shorter than Lc says
        ("00a4040005a0000003080000", 0x6700),  # longer
        ("00a4040000000041", 0x6700),  # extended, Lc 0
        ("80a4040005a000000308", 0x6E00),
        ("0ca4040005a000000308", 0x6E00),
        ("00a4040005a000000309", 0x6A82),
        ("00a4040004a0000003", 0x6A82),  # too little of the name
        ("00a4000005a000000308", 0x6A82),
        ("0000000000", 0x6D00),
        ("0020008100", 0x6A88),
        ("00200180083132333435360000", 0x6B00),
        ("0020008007313233343536ff", 0x6A80),
        ("00cb3fff00", 0x6A80),
        ("00cb3ffe055c035fc102", 0x6B00),
        ("00cb3fff055c045fc102", 0x6A80),
        ("00cb3fff045c025fc1", 0x6A82),
        ("00870082027c00", 0x6A80),
        ("0087119a047c028200", 0x6A80),
        ("00871155047c028200", 0x6B00),
        ("0087039b047c028100", 0x6A80),  # the management key is AES here
        ("00f9820100", 0x6B00),
        ("0047008205ac03800111", 0x6982),
        ("00f7000000", 0x6A88),
        ("00c0000000", 0x6985),
    ],
)
def test_malformed_commands_get_their_status_word(raw: str, sw: int) -> None:
    card = selected_card()
    assert card.transmit(bytes.fromhex(raw)) == sw.to_bytes(2)


def test_nothing_is_selected_after_a_reset() -> None:
    card = selected_card()
    card.reset()
    assert card.transmit(bytes.fromhex("00fd000000")) == b"\x6d\x00"


INSTRUCTIONS = [0x20, 0x24, 0x2C, 0x47, 0x87, 0xA4, 0xC0, 0xCB, 0xDB, *range(0xF6, 0x100), 0x1D]
KNOWN_WORDS = {
    *(0x9000, 0x6700, 0x6982, 0x6983, 0x6985, 0x6A80, 0x6A82, 0x6A84, 0x6A88, 0x6B00, 0x6D00, 0x6E00),
    *range(0x63C0, 0x63D0),
    *range(0x6100, 0x6200),
}
COMMANDS = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda cla, ins, p1, p2, data: bytes([cla, ins, p1, p2]) + (bytes([len(data)]) + data if data else b""),
        st.sampled_from([0x00, 0x10]),
        st.sampled_from(INSTRUCTIONS),
        st.sampled_from([0x00, 0x04, 0x11, 0x0A, 0x3F, 0x82, 0xFF]) | st.integers(0, 255),
        st.sampled_from([0x00, 0x80, 0x81, 0x82, 0x9A, 0x9B, 0xF9, 0xFF]) | st.integers(0, 255),
        st.binary(max_size=80)
        | st.builds(tlv, st.sampled_from([0x5C, 0x7C, 0xAC, 0x53, 0x7F49]), st.binary(max_size=40))
        | st.just(PIV_AID),
    ),
)


@given(commands=st.lists(COMMANDS, max_size=8), verified=st.booleans())
def test_whatever_is_sent_is_answered_with_a_known_status_word(commands: list[bytes], verified: bool) -> None:
    card = selected_card()
    if verified:
        assert card.transmit(VERIFY) == b"\x90\x00"
    for command in commands:
        answer = card.transmit(command)
        assert int.from_bytes(answer[-2:]) in KNOWN_WORDS, command.hex()
    # Nobody has proven the management key.
    assert set(card.store.state.keys) == {0xF9}
    assert set(card.store.state.objects) == {0x5FFF01}


@given(commands=st.lists(COMMANDS, max_size=8))
def test_so_it_is_for_one_who_has_the_management_key(commands: list[bytes]) -> None:
    card = selected_card()
    for command in commands:
        card.selected._session.administrator = True  # type: ignore[union-attr]
        answer = card.transmit(command)
        assert int.from_bytes(answer[-2:]) in KNOWN_WORDS, command.hex()
