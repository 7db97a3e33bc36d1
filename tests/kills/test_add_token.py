"""``vault add-token`` killed at any moment: the vault works on with its own token, and the next run completes it."""

from __future__ import annotations

from pathlib import Path

from tests.kills.established import NOVEMBER, WHOLE, Established
from tests.kills.place import Command, Place
from tests.kills.test_kills import check_no_secret, kills
from tests.support.softhsm import softhsm_module

ADD = Command(
    ("vault", "add-token", f"spare=pkcs11:token=spare?module-path={softhsm_module()}", "--profile", "p256-hpke")
)
SPARE = [
    "DATA medcrypt anchor",
    "PRIVATE_KEY medcrypt audit",
    "PRIVATE_KEY medcrypt kek",
    "PUBLIC_KEY medcrypt audit",
    "PUBLIC_KEY medcrypt kek",
]


def test_add_token(established: Established, tmp_path: Path) -> None:
    start = established.place.copy_to(tmp_path / "start")
    start.softhsm.make_token("spare")

    def check(place: Place, stdout: str) -> None:
        check_no_secret(place)
        trust = place.rows("SELECT kind, name FROM trust WHERE kind IN ('token', 'adding') ORDER BY 1, 2")
        registered = ("token", "spare") in trust
        status = place.medcrypt("--json", "status", "--token", "doctor", at=NOVEMBER).json
        named = [problem for problem in status["problems"] if "adding token spare (serial" in problem]
        assert len(named) == (("adding", "spare") in trust)
        assert not (registered and named)
        assert place.look(established.wires, NOVEMBER)["read"] == established.texts

        again = place.run(ADD, code=2 if registered else 0)
        assert not registered or "called spare" in again.stderr
        assert registered or not stdout
        assert place.medcrypt("--json", "status", at=NOVEMBER).json["problems"] == []
        for token in ("spare", "doctor"):
            read = Command(("decrypt", "--token", token), stdin=established.wires[0])
            assert established.texts[0] in place.run(read).stdout
        look = place.look(established.wires, NOVEMBER)
        assert set(look["objects"]) == {*WHOLE, *SPARE}
        assert look["objects_after_anchor"] == sorted([*WHOLE, *SPARE])
        introduced = [entry[3] for entry in look["entries"] if entry[2] == "token.introduce"]
        assert introduced == ["doctor", "spare"]

    kills(start, ADD, 6, check, tmp_path)
