"""breakglass ceremony, rotate, replace: who holds the shares, as they meet it themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.circle import (
    CUSTODIANS,
    LATER,
    own_sources,
    refused,
    shares,
    uri,
)
from tests.support.clinic import PIN_LINE, Clinic, assert_fields_documented, section
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import USER_PIN, softhsm_module


class TestCeremony:
    def test_shares_words_and_a_transcript(self, bare: Clinic) -> None:
        to = bare.run.home / "acta"
        options = ("--transcript", str(to), "--threshold", "2")
        done = bare.run("--json", "--yes", "breakglass", "ceremony", *shares(*CUSTODIANS), *options)
        found = done.json
        assert_fields_documented("breakglass ceremony", found)
        assert [custodian["name"] for custodian in found["custodians"]] == list(CUSTODIANS)
        assert {len(words.split()) for words in (found["words"], *(c["words"] for c in found["custodians"]))} == {10}
        assert (found["threshold"], found["rehearsal"], found["steps"], found["old_shares"]) == (2, False, [], [])
        assert found["certificate_files"] == [f"{to}.json", f"{to}.md"]
        assert found["words"] in Path(f"{to}.md").read_text()
        assert "vault backup FILE" in done.stderr
        assert USER_PIN not in done.stdout + done.stderr
        status = bare.run("--json", "status", "--token", "doctor").json
        assert_fields_documented("status", status)
        told = status["breakglass"]
        assert (told["ceremony"], told["words"], told["threshold"]) == (found["ceremony"], found["words"], 2)
        assert [c["words"] for c in told["custodians"]] == [c["words"] for c in found["custodians"]]
        assert bare.run("--json", "status").json["breakglass"] == told, "the file tells it without a token"

    def test_at_a_terminal_each_custodian_is_asked_by_name(self, bare: Clinic) -> None:
        command = ("breakglass", "ceremony", *shares(*CUSTODIANS))
        terminal = bare.terminal(*command, env={"MEDCRYPT_PIN_SOURCE": "prompt"})
        terminal.expect("PIN of token doctor")
        terminal.type(PIN_LINE)
        terminal.expect("backups from before cannot be put back any more")
        terminal.expect("Type ceremony to go on: ")
        terminal.type("ceremony\n")
        for name in CUSTODIANS:
            terminal.expect(f"PIN of custodian {name}: token {name}")
            terminal.type(PIN_LINE)
        assert terminal.finish() == 0
        assert USER_PIN not in terminal.seen
        assert "any 2 of ana, berta, carla" in bare.run("status").stdout

    def test_another_word_changes_nothing(self, bare: Clinic) -> None:
        terminal = bare.terminal("breakglass", "ceremony", *shares(*CUSTODIANS))
        terminal.expect("Type ceremony to go on: ")
        terminal.type("yes\n")
        assert terminal.finish() == 1
        assert bare.run("--json", "status").json["breakglass"] is None
        done = bare.detached("breakglass", "ceremony", *shares(*CUSTODIANS))
        assert done.returncode == 2
        assert "needs a person's consent" in done.stderr

    def test_an_unnamed_pin_is_no_custodians(self, bare: Clinic) -> None:
        env = {"MEDCRYPT_PIN_SOURCE": f"env:{PIN_VARIABLE} ana=env:{PIN_VARIABLE}"}
        found = refused(bare, "ceremony", *shares(*CUSTODIANS), "--non-interactive", code=4, env=env)
        assert "custodian berta" in found["message"]
        assert "--pin-source berta=" in found["hint"]

    def test_a_token_that_is_not_there_is_found_out_before_any_custodian_is_asked(self, bare: Clinic) -> None:
        absent = f"carla=pkcs11:token=nadie?module-path={softhsm_module()}"
        command = ("ceremony", *shares("ana", "berta"), "--share-token", absent)
        env = {"MEDCRYPT_PIN_SOURCE": f"env:{PIN_VARIABLE}"}
        found = refused(bare, *command, code=3, env=env)
        assert (found["error"], "custodian carla" in found["message"]) == ("token-absent", True)

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            (["--share-token", f"ana={uri('doctor')}", *shares("berta")], 6, "BG-1"),
            (["--share-token", f"ana={uri('berta')}", *shares("berta")], 6, "BG-1"),
            ([*shares("ana", "berta"), "--threshold", "3"], 2, "3 of 2 custodians"),
            ([*shares("ana", "ana")], 2, "named twice"),
            (["--share-token", "ana"], 2, "a short name"),
            ([], 2, "nobody is named"),
            ([*shares("ana", "berta"), "--without", "nobody"], 2, "no token nobody"),
        ],
    )
    def test_refused(self, bare: Clinic, options: list[str], code: int, words: str) -> None:
        assert words in refused(bare, "ceremony", *options, code=code)["message"]
        assert bare.run("--json", "status").json["breakglass"] is None

    def test_by_a_file(self, bare: Clinic) -> None:
        plan = bare.run.home / "CEREMONY.toml"
        tables = (f'[[custodian]]\nname = "{n}"\nperson = "{n} Ejemplo"\ntoken = "{uri(n)}"\n' for n in CUSTODIANS)
        plan.write_text(
            'threshold = 3\nplace = "Sala 2"\nwitnesses = ["Notaria Ejemplo"]\n' + "".join(tables), encoding="utf-8"
        )
        refused(bare, "ceremony", "--file", plan, "--threshold", "2", code=2)
        done = bare.run("--json", "--yes", "breakglass", "ceremony", "--file", plan)
        assert (done.json["threshold"], done.json["place"]) == (3, "Sala 2")
        assert done.json["witnesses"] == ["Notaria Ejemplo"]
        assert [custodian["person"] for custodian in done.json["custodians"]] == [f"{n} Ejemplo" for n in CUSTODIANS]
        assert "Sala 2" in done.stderr
        assert "Notaria Ejemplo" in done.stderr

    def test_a_second_one(self, circle: Clinic) -> None:
        assert "breakglass rotate" in refused(circle, "ceremony", *shares("ana", "dora"), code=2)["hint"]


class TestRotateAndReplace:
    def test_rotated(self, circle: Clinic) -> None:
        before = circle.run("--json", "status").json["breakglass"]
        found = circle.run("--json", "--yes", "breakglass", "rotate", "--threshold", "3").json
        assert_fields_documented("breakglass rotate", found)
        assert (found["threshold"], found["ceremony"] != before["ceremony"]) == (3, True)
        assert [(old["name"], old["destroyed"]) for old in found["old_shares"]] == [(n, True) for n in CUSTODIANS]
        assert circle.run("--json", "status", "--token", "doctor").json["problems"] == []

    def test_somebody_has_another_token_now(self, circle: Clinic) -> None:
        env = own_sources(*CUSTODIANS)  # the old token's PIN is berta's too
        done = circle.run(
            "--yes", "breakglass", "rotate", "--share-token", f"berta={uri('dora')}", "--without", "doctor", code=2
        )
        assert "cannot be left out" in done.stderr
        done = circle.run("--yes", "breakglass", "rotate", "--share-token", f"berta={uri('dora')}", env=env)
        assert "custodian:     berta: dora" in done.stdout
        assert "old share:     berta" in done.stdout
        assert "LEFT" not in done.stdout

    def test_replaced_and_what_is_left_is_named_until_it_is_gone(self, circle: Clinic) -> None:
        env = own_sources("ana", "carla", "dora")  # nobody knows berta's PIN
        command = ("--non-interactive", "--json", "--yes", "breakglass", "replace", "berta", *shares("dora"))
        found = circle.run(*command, env=env).json
        assert_fields_documented("breakglass replace", found)
        assert [custodian["name"] for custodian in found["custodians"]] == ["ana", "dora", "carla"]
        assert [old["name"] for old in found["old_shares"] if not old["destroyed"]] == ["berta"]
        status = circle.run("--json", "status").json
        assert [old["name"] for old in status["breakglass"]["old_shares"]] == ["berta"]
        assert any("the share of berta" in problem for problem in status["problems"])
        done = circle.run("--yes", "breakglass", "rotate", at=LATER)
        assert "old share:     berta" in done.stdout
        assert circle.run("--json", "status").json["problems"] == []

    @pytest.mark.parametrize(
        ("command", "code", "words"),
        [
            (["replace", "berta"], 2, "one custodian takes the place"),
            (["replace", "nadie", *shares("dora")], 2, "no custodian nadie"),
            (["replace", "berta", *shares("carla")], 2, "carla is a custodian already"),
            (["rotate", *shares("dora")], 2, "no custodian dora"),
            (["rotate", "--threshold", "4"], 2, "4 of 3 custodians"),
            (["rotate", "--threshold", "0"], 2, "0 of 3 custodians"),
        ],
    )
    def test_refused(self, circle: Clinic, command: list[str], code: int, words: str) -> None:
        assert words in refused(circle, *command, code=code)["message"]

    def test_a_custodian_is_typed_to_be_replaced(self, circle: Clinic) -> None:
        terminal = circle.terminal("breakglass", "replace", "berta", *shares("dora"))
        terminal.expect("Type berta to go on: ")
        terminal.type("dora\n")
        assert terminal.finish() == 1
        assert "any 2 of ana, berta, carla" in circle.run("status").stdout

    def test_without_custodians(self, bare: Clinic) -> None:
        assert "no custodians" in refused(bare, "rotate", code=2)["message"]


def test_the_reference_shows_a_plan_that_is_one() -> None:
    from medcrypt_hsm.breakglass.plan import parse

    plan, threshold = parse(section("breakglass ceremony").split("```toml\n")[1].split("```")[0].encode())
    assert (threshold, plan.custodians[0].person) == (2, "Ana Ejemplo")
