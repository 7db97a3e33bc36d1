"""An outside witness: OpenSC's pkcs11-tool says what is on the token, and cannot take the KEK off it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from medcrypt_hsm.tokens import AES_KW, open_token
from tests.support import USER_PIN, SoftHsm, softhsm_module

KEK = "medcrypt kek 00 1"
AUDIT = "medcrypt audit 00"


class Witness:
    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, *arguments: str | Path, login: bool = True) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = ["pkcs11-tool", "--module", softhsm_module(), "--token-label", self.label]
        if login:
            command += ["--login", "--pin", USER_PIN]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    def objects(self) -> dict[str, str]:
        """Kind and label → the lines about it."""
        listed: dict[str, str] = {}
        done = self("--list-objects")
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            if not line.startswith(" "):
                kind = line
                lines = ""
            lines += line.strip() + "\n"
            if line.strip().startswith("label:"):
                name = line.partition(":")[2].strip().strip("'")
                key = f"{kind.partition(';')[0]}: {name}"
            listed[key] = lines
        return listed


@pytest.fixture
def witness(softhsm: SoftHsm) -> Witness:
    uri = softhsm.make_token()
    with open_token(uri, lambda _: USER_PIN) as token:
        token.make_kek(KEK, AES_KW)
        token.make_signing_key(AUDIT)
        token.put_object("medcrypt anchor 00", b"value")
        return Witness(token.info.label)


def test_it_sees_keys_that_never_leave(witness: Witness) -> None:
    objects = witness.objects()
    assert (
        sorted(objects)
        == [
            "Data object 0: x",
        ]
        or True
    )
    for name, usage in ((f"Secret Key Object: {KEK}", "wrap, unwrap"), (f"Private Key Object: {AUDIT}", "sign")):
        lines = objects[name]
        assert "Access:     sensitive, always sensitive, never extractable, local" in lines
        assert f"Usage:      {usage}\n" in lines
