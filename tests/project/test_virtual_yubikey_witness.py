"""Programs that know nothing of this project drive the virtual YubiKey: ykman, yubico-piv-tool, ykcs11 and openssl.

What they accept and show is what makes the virtual card a stand-in for a real one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checkout import installed
from tests.support.pcscd import Pcscd
from tests.support.yubikey import FIRMWARES, MANAGEMENT_KEY, PIN, PUK, SOME, VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]

YKMAN = Path(sys.executable).with_name("ykman")
SIGN = ["--sign", "-m", "ECDSA-SHA256", "-f", "openssl"]
NEW_PIN, NEW_PUK = "654321", "87654321"


def run(*command: str | Path, code: int = 0, stdin: bytes = b"") -> str:
    """Output and messages of a program that ends with this exit code."""
    done = subprocess.run([*map(str, command)], input=stdin, capture_output=True, timeout=60)
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == code, f"exit {done.returncode}: {command}\n{text}"
    return text


def ykman(*arguments: str | Path, code: int = 0) -> str:
    return run(YKMAN, *arguments, code=code)


def piv_tool(*arguments: str | Path, code: int = 0) -> str:
    return run("yubico-piv-tool", *arguments, code=code)


def ykcs11(*arguments: str | Path, code: int = 0) -> str:
    return run("pkcs11-tool", "--module", ykcs11_module(), *arguments, code=code)


def ykcs11_module() -> Path:
    return installed("ykcs11", "*/libykcs11.so", "libykcs11.so")


def with_triple_des(firmware: str) -> None:
    """yubico-piv-tool 2.2 knows no other management key; YubiKeys from 5.7 come with AES."""
    if firmware.startswith("5.7"):
        change = ["piv", "access", "change-management-key", "-a", "TDES", "-f"]
        ykman(*change, "-m", MANAGEMENT_KEY, "-n", MANAGEMENT_KEY)


def generate(slot: str, public: Path, *options: str) -> None:
    ykman("piv", "keys", "generate", "-m", MANAGEMENT_KEY, "-a", "ECCP256", *options, slot, public)


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_ykman_knows_it_for_a_yubikey(firmware: str, yubikey: YubiKeys) -> None:
    yubikey(firmware, serial=13572468)
    name = "YubiKey 4" if firmware.startswith("4") else "YubiKey 5A"
    assert ykman("list") == f"{name} ({firmware}) [CCID] Serial: 13572468\n"
    info = ykman("info")
    assert f"Firmware version: {firmware}" in info
    assert re.search(r"^PIV\s+Enabled$", info, re.M)
    assert f"PIV version:              {firmware}" in ykman("piv", "info")


def test_ykman_tells_two_apart_by_serial(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    pcscd.stop()
    pcscd.start(readers=2)
    yubikey("5.4.3", serial=11111111)
    yubikey("5.7.4", serial=22222222)
    assert sorted(ykman("list", "--serials").split()) == ["11111111", "22222222"]
    assert "PIV version:              5.7.4" in ykman("-d", "22222222", "piv", "info")


@pytest.mark.parametrize("firmware", SOME)
def test_ykman_makes_a_key_and_its_certificate(firmware: str, yubikey: YubiKeys, tmp_path: Path) -> None:
    yubikey(firmware)
    public, certificate = tmp_path / "public.pem", tmp_path / "certificate.pem"
    generate("82", public)
    ykman("piv", "certificates", "generate", "-m", MANAGEMENT_KEY, "-P", PIN, "-s", "CN=Example", "82", public)
    ykman("piv", "certificates", "export", "82", certificate)
    assert run("openssl", "verify", "-CAfile", certificate, certificate).endswith("OK\n")  # signed by the key itself
    shown = run("openssl", "x509", "-in", certificate, "-noout", "-pubkey")
    assert shown == public.read_text()
    info = ykman("piv", "info")
    assert "Slot 82 (RETIRED1):" in info
    assert "CN=Example" in info


@pytest.mark.parametrize("firmware", SOME)
def test_ykman_changes_pin_puk_and_management_key(firmware: str, yubikey: YubiKeys, tmp_path: Path) -> None:
    key = yubikey(firmware)
    ykman("piv", "access", "change-pin", "-P", PIN, "-n", NEW_PIN)
    ykman("piv", "access", "change-puk", "-p", PUK, "-n", NEW_PUK)
    change = ["piv", "access", "change-management-key", "-m", MANAGEMENT_KEY, "--generate", "--protect"]
    ykman(*change, "-P", NEW_PIN)
    assert key.state.pin.value == b"654321\xff\xff"
    assert key.state.puk.value == b"87654321"
    assert key.state.management.value.hex() != MANAGEMENT_KEY
    info = ykman("piv", "info")
    assert "Management key is stored on the YubiKey, protected by PIN." in info
    assert "default" not in info.lower()
    # ykman reads the management key back with the PIN, and without it cannot.
    ykman("piv", "keys", "generate", "-P", NEW_PIN, "-a", "ECCP256", "82", tmp_path / "public.pem")
    assert (
        "authentication"
        in ykman("piv", "keys", "generate", "-m", MANAGEMENT_KEY, "82", tmp_path / "other.pem", code=1).lower()
    )


def test_ykman_locks_the_pin_and_unblocks_it(yubikey: YubiKeys) -> None:
    key = yubikey()
    for left in ("2", "1"):
        assert f"{left} tries left" in ykman("piv", "access", "change-pin", "-P", "999999", "-n", NEW_PIN, code=1)
    assert "blocked" in ykman("piv", "access", "change-pin", "-P", "999999", "-n", NEW_PIN, code=1)
    assert "blocked" in ykman("piv", "access", "change-pin", "-P", PIN, "-n", NEW_PIN, code=1)
    assert key.state.pin.left == 0
    ykman("piv", "access", "unblock-pin", "-p", PUK, "-n", NEW_PIN)
    ykman("piv", "access", "change-pin", "-P", NEW_PIN, "-n", PIN)
    assert key.state.pin.left == 3


def test_ykman_sets_retries(yubikey: YubiKeys) -> None:
    yubikey()
    ykman("piv", "access", "set-retries", "-m", MANAGEMENT_KEY, "-P", PIN, "-f", "5", "8")
    info = ykman("piv", "info")
    assert "PIN tries remaining:      5/5\nPUK tries remaining:      8/8\n" in info


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_ykman_attests_a_key_and_openssl_follows_the_chain(firmware: str, yubikey: YubiKeys, tmp_path: Path) -> None:
    key = yubikey(firmware)
    generate("82", tmp_path / "public.pem", "--touch-policy", "CACHED")
    slot, f9 = tmp_path / "slot.pem", tmp_path / "f9.pem"
    ykman("piv", "keys", "attest", "82", slot)
    ykman("piv", "certificates", "export", "f9", f9)
    shown = run("openssl", "x509", "-in", slot, "-noout", "-subject", "-issuer")
    assert shown == "subject=CN = YubiKey PIV Attestation 82\nissuer=CN = Yubico PIV Attestation\n"
    verify: list[str | Path] = ["openssl", "verify", "-CAfile", key.directory / "roots.pem", "-untrusted", f9, slot]
    if firmware.startswith("4"):
        assert "invalid CA certificate" in run(*verify, code=2)  # F9 of early ones lacks BasicConstraints
    else:
        assert run(*verify) == f"{slot}: OK\n"
    assert run("openssl", "x509", "-in", slot, "-noout", "-pubkey") == (tmp_path / "public.pem").read_text()


def test_ykman_resets_it(yubikey: YubiKeys, tmp_path: Path) -> None:
    key = yubikey("4.3.5")  # without metadata it has to find out by itself when the PUK is blocked
    generate("82", tmp_path / "public.pem")
    ykman("piv", "access", "change-pin", "-P", PIN, "-n", NEW_PIN)
    assert "Reset complete" in ykman("piv", "reset", "-f")
    assert set(key.state.keys) == {0xF9}
    ykman("piv", "access", "change-pin", "-P", PIN, "-n", NEW_PIN)


def test_ykman_moves_and_deletes_keys_since_5_7(yubikey: YubiKeys, tmp_path: Path) -> None:
    key = yubikey("5.7.4")
    generate("82", tmp_path / "public.pem")
    assert "Algorithm:" in ykman("piv", "keys", "info", "82")
    ykman("piv", "keys", "move", "-m", MANAGEMENT_KEY, "82", "83")
    assert set(key.state.keys) == {0x83, 0xF9}
    ykman("piv", "keys", "delete", "-m", MANAGEMENT_KEY, "83")
    assert set(key.state.keys) == {0xF9}


def test_objects_longer_than_one_apdu_go_both_ways(yubikey: YubiKeys, tmp_path: Path) -> None:
    """ykman writes with extended APDUs, yubico-piv-tool reads with GET RESPONSE; then with chaining, back again."""
    yubikey()
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(bytes(range(256)) * 11)
    ykman("piv", "objects", "import", "-m", MANAGEMENT_KEY, "0x5f4d00", sent)
    piv_tool("-a", "read-object", "--id=0x5f4d00", "-f", "binary", "-o", back)
    assert back.read_bytes() == sent.read_bytes()
    sent.write_bytes(sent.read_bytes()[::-1])
    piv_tool(f"-k{MANAGEMENT_KEY}", "-a", "write-object", "--id=0x5f4d00", "-f", "binary", "-i", sent)
    ykman("piv", "objects", "export", "0x5f4d00", back)
    assert back.read_bytes() == sent.read_bytes()


@pytest.mark.parametrize("firmware", SOME)
def test_yubico_piv_tool_drives_it(firmware: str, yubikey: YubiKeys, tmp_path: Path) -> None:
    key = yubikey(firmware, serial=13572468)
    status = piv_tool("-a", "status")
    assert f"Version:\t{firmware}\n" in status
    assert "Serial Number:\t13572468\n" in status
    assert "PIN tries left:\t3\n" in status
    with_triple_des(firmware)
    public = tmp_path / "public.pem"
    piv_tool(f"-k{MANAGEMENT_KEY}", "-a", "generate", "-s", "83", "-A", "ECCP256", "-o", public)
    assert key.state.keys[0x83].generated
    attested = tmp_path / "attested.pem"
    attested.write_text(piv_tool("-a", "attest", "-s", "83"))
    assert run("openssl", "x509", "-in", attested, "-noout", "-pubkey") == public.read_text()
    piv_tool("-a", "change-pin", "-P", PIN, "-N", NEW_PIN)
    piv_tool("-a", "verify-pin", "-P", NEW_PIN)
    piv_tool("-a", "verify-pin", "-P", PIN, code=1)
    assert "PIN tries left:\t2\n" in piv_tool("-a", "status")
    assert key.state.pin.left == 2


TAKE_OUT = """
import sys
import pkcs11
module, pin = sys.argv[1:]
token = next(pkcs11.lib(module).get_tokens())
with token.open(user_pin=pin) as session:
    private = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, id=b"\\x05")
    assert private[pkcs11.Attribute.EC_POINT]
    try:
        print(private[pkcs11.Attribute.VALUE].hex())
    except (pkcs11.PKCS11Error, NotImplementedError):
        print("VALUE refused, EC_POINT read")
"""


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_ykcs11_sees_the_keys_signs_and_cannot_take_them_out(firmware: str, yubikey: YubiKeys, tmp_path: Path) -> None:
    key = yubikey(firmware)
    public = tmp_path / "public.pem"
    generate("82", public)
    ykman("piv", "certificates", "generate", "-m", MANAGEMENT_KEY, "-P", PIN, "-s", "CN=Example", "82", public)
    assert f"YubiKey PIV #{key.serial}" in ykcs11("-L")
    login = ["--login", "--pin", PIN]
    objects = ykcs11("-O", *login)
    private = objects[objects.index("Private Key Object; EC") :]
    assert "Private key for Retired Key 1" in private
    assert "sensitive, always sensitive, never extractable, local" in private
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"message")
    sign: list[str | Path] = [
        "--sign",
        "-m",
        "ECDSA-SHA256",
        "-f",
        "openssl",
        "--id",
        "05",
        "-i",
        message,
        "-o",
        signature,
    ]
    ykcs11(*login, *sign)
    verified = run("openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, message)
    assert verified == "Verified OK\n"
    before = signature.read_bytes()
    ykcs11(*sign, code=1)
    assert signature.read_bytes() == before
    assert run(sys.executable, "-c", TAKE_OUT, ykcs11_module(), PIN) == "VALUE refused, EC_POINT read\n"


def test_ykcs11_signs_with_a_key_that_wants_the_pin_each_time(yubikey: YubiKeys, tmp_path: Path) -> None:
    yubikey()
    public = tmp_path / "public.pem"
    generate("9c", public)
    ykman("piv", "certificates", "generate", "-m", MANAGEMENT_KEY, "-P", PIN, "-s", "CN=Example", "9c", public)
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"message")
    sign: list[str | Path] = [
        "--sign",
        "-m",
        "ECDSA-SHA256",
        "-f",
        "openssl",
        "--id",
        "02",
        "-i",
        message,
        "-o",
        signature,
    ]
    ykcs11("--login", "--pin", PIN, *sign)
    assert "OK" in run("openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, message)
