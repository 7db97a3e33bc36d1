"""An outside witness: OpenSC's pkcs11-tool says what is on the token, and cannot take the KEK off it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from medcrypt_hsm.tokens import AES_KW
from medcrypt_hsm.tokens.access import open_token
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module

KEK = "medcrypt kek 00 1"
AUDIT = "medcrypt audit 00"
ANCHOR = "medcrypt anchor 00"


class Witness:
    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, *arguments: str | Path, login: bool = True) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = ["pkcs11-tool", "--module", softhsm_module(), "--token-label", self.label]
        if login:
            command += ["--login", "--pin", USER_PIN]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    def objects(self, *, login: bool = True) -> dict[tuple[str, str], dict[str, str]]:
        """(kind, label) → what is said of it."""
        done = self("--list-objects", login=login)
        assert done.returncode == 0, done.stderr
        listed = {}
        for block in re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE)[1:]:
            kind, *lines = block.splitlines()
            said = {
                name.strip(): value.strip().strip("'") for name, _, value in (line.partition(":") for line in lines)
            }
            listed[re.split(" Object| object", kind)[0], said["label"]] = said
        return listed


@pytest.fixture
def witness(softhsm: SoftHsm) -> Witness:
    uri = softhsm.make_token()
    with open_token(uri, lambda _: USER_PIN) as token:
        token.make_kek(KEK, AES_KW)
        token.make_signing_key(AUDIT)
        token.put_object(ANCHOR, b"value")
        return Witness(token.info.label)


def test_it_sees_keys_that_never_leave(witness: Witness) -> None:
    objects = witness.objects()
    assert sorted(objects) == [("Data", ANCHOR), ("Private Key", AUDIT), ("Public Key", AUDIT), ("Secret Key", KEK)]
    kek, audit = objects["Secret Key", KEK], objects["Private Key", AUDIT]
    assert kek["Access"] == audit["Access"] == "sensitive, always sensitive, never extractable, local"
    assert kek["Usage"] == "wrap, unwrap"
    assert audit["Usage"] == "sign"
    assert audit["ID"] == objects["Public Key", AUDIT]["ID"] != kek["ID"]
    assert "private" in objects["Data", ANCHOR]["flags"]


def test_without_the_pin_it_sees_the_public_key_alone(witness: Witness) -> None:
    assert list(witness.objects(login=False)) == [("Public Key", AUDIT)]


def test_it_cannot_read_the_kek(witness: Witness, tmp_path: Path) -> None:
    out = tmp_path / "kek"
    done = witness("--read-object", "--type", "secrkey", "--label", KEK, "--output-file", out)
    assert done.returncode != 0
    assert "CKR_ATTRIBUTE_SENSITIVE" in done.stderr + done.stdout
    assert not out.exists() or not out.read_bytes()


def test_it_cannot_wrap_the_kek_out(witness: Witness, tmp_path: Path) -> None:
    for name, ident in (("wrapping", "02"), ("extractable", "03")):
        made = witness(
            *("--keygen", "--key-type", "AES:32", "--label", name, "--id", ident, "--usage-wrap", "--extractable")
        )
        assert made.returncode == 0, made.stderr
    out = tmp_path / "wrapped"
    wrap = ("--wrap", "--mechanism", "AES-KEY-WRAP", "--id", "02", "--output-file", out, "--application-id")
    assert witness(*wrap, "03").returncode == 0  # it does wrap what may be wrapped
    assert len(out.read_bytes()) == 40
    out.unlink()
    done = witness(*wrap, witness.objects()["Secret Key", KEK]["ID"])
    assert done.returncode != 0
    assert "CKR_KEY_UNEXTRACTABLE" in done.stderr
    assert not out.exists() or not out.read_bytes()


def test_it_agrees_that_a_destroyed_kek_is_gone(witness: Witness) -> None:
    with open_token(f"pkcs11:token={witness.label}?module-path={softhsm_module()}", lambda _: USER_PIN) as token:
        token.destroy(KEK)
    assert ("Secret Key", KEK) not in witness.objects()
