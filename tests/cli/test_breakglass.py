"""breakglass drill, request, approve, decrypt, recover, as the people meet them."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.circle import (
    CUSTODIANS,
    LATER,
    REASON,
    Asking,
    refused,
    shares,
    uri,
)
from tests.support.clinic import V1_PATIENT, V2_PATIENT, Clinic, assert_fields_documented

RULE = "breakglass-refused"


def altered(file: Path) -> Path:
    """The same file with another signature."""
    statement, signature, enclosure, _ = file.read_bytes().split(b"\n")
    other = signature[:-1] + (b"0" if signature[-1:] != b"0" else b"1")
    copy = file.with_name(f"{file.name}.altered")
    copy.write_bytes(b"\n".join((statement, other, enclosure, b"")))
    return copy


class TestDrill:
    def drill(self, circle: Clinic, who: str, at: str = LATER) -> Path:
        out = circle.run.home / f"{who}.{at[-8:].replace(':', '')}"
        found = circle.run("--json", "breakglass", "drill", "--token", uri(who), out, at=at).json
        assert_fields_documented("breakglass drill", found)
        assert (found["custodian"], found["of"]) == (who, 3)
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        return out

    def test_alone_and_recorded(self, circle: Clinic) -> None:
        assert "drills:     never ana, berta, carla" in circle.run("status").stdout
        results = [self.drill(circle, who) for who in ("ana", "carla")]
        found = circle.run("--json", "breakglass", "drill", "--record", *results, at=LATER).json
        assert_fields_documented("breakglass drill", found)
        assert (found["recorded"], found["never_drilled"]) == (["ana", "carla"], ["berta"])
        assert "; never berta" in circle.run("status", at=LATER).stdout
        repeated = refused(circle, "drill", "--record", results[0], code=6, at=LATER)
        assert repeated["error"] == "refused"
        third = self.drill(circle, "berta", "2026-11-22 14:00:00")
        circle.run("breakglass", "drill", "--record", third, at="2026-11-22 14:00:00")
        assert "longest ago ana, at 2026-11-22T13:" in circle.run("status", at="2026-11-22 14:00:00").stdout

    def test_put_together(self, circle: Clinic) -> None:
        found = circle.run("--json", "breakglass", "drill", "--reconstruct", *shares(*CUSTODIANS), at=LATER).json
        assert_fields_documented("breakglass drill", found)
        assert found["reconstructed"] == [["ana", "berta"], ["ana", "carla"], ["berta", "carla"]]
        assert "BG-2" in refused(circle, "drill", "--reconstruct", *shares("ana"), code=6)["message"]

    def test_a_result_that_is_not_theirs(self, circle: Clinic) -> None:
        result = self.drill(circle, "ana")
        assert refused(circle, "drill", "--record", altered(result), code=5)["error"] == "not-authentic"
        cut = result.with_name("cut")
        cut.write_bytes(result.read_bytes()[:-1])
        assert refused(circle, "drill", "--record", cut, code=5)["error"] == "malformed"
        circle.run("--yes", "breakglass", "rotate", at=LATER)
        assert "BG-3" in refused(circle, "drill", "--record", result, code=6, at=LATER)["message"]

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            (["--record", "--reconstruct"], 2),
            (["--record"], 2),
            (["--reconstruct", "x", *shares("ana")], 2),
            (["x"], 2),
            (["--token", "doctor", "x"], 2),
            (["--token", uri("ana")], 2),
            (["--token", uri("ana"), "--ceremony", "12", "x"], 2),
            (["--token", uri("ana"), "--ceremony", "00" * 6, "x"], 3),
            (["--token", uri("nueva"), "x"], 3),
            (["--record", "nothing.there"], 2),
            ([*shares("ana"), "x"], 2),
        ],
    )
    def test_refused(self, circle: Clinic, options: list[str], code: int) -> None:
        refused(circle, "drill", *options, code=code)


class TestRequest:
    def test_its_words_and_who_must_approve(self, circle: Clinic) -> None:
        out = circle.run.home / "pedido"
        options = ("--reason", REASON, "--patient", V2_PATIENT, "--hours", "48", "--token", f"nueva={uri('nueva')}")
        done = circle.run("--json", "breakglass", "request", *options, out)
        assert_fields_documented("breakglass request", done.json)
        assert (done.json["scope"], done.json["patient"]) == ("patient", V2_PATIENT)
        assert (done.json["threshold"], done.json["custodians"]) == (2, list(CUSTODIANS))
        assert done.json["expires"].startswith("2026-11-24T12:00")
        assert len(done.json["words"].split()) == 10
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        words = circle.run("breakglass", "request", *options, out.with_name("otro")).stdout
        assert "2 of ana, berta, carla" in words

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            (["--token", f"nueva={uri('doctor')}", "o"], 6, "BG-1"),
            (["--token", f"nueva={uri('ana')}", "o"], 6, "BG-1"),
            (["--token", f"nueva={uri('nueva')}", "--hours", "73", "o"], 6, "BG-4"),
            (["--token", f"doctor={uri('nueva')}", "o"], 2, "a token called doctor"),
            (["--token", f"bg-1={uri('nueva')}", "o"], 2, "no name for a token"),
            (["--token", uri("nueva"), "o"], 2, "a short name"),
            (["--token", f"nueva={uri('nueva')}", "--reason", " ", "o"], 2, "a reason is needed"),
            (["--token", f"nueva={uri('nueva')}", "."], 2, "is a directory"),
            (["--token", f"nueva={uri('nueva')}", "no/o"], 2, "there is no directory"),
            (["--token", f"nueva={uri('nadie')}", "o"], 3, "no token fits"),
        ],
    )
    def test_refused(self, circle: Clinic, options: list[str], code: int, words: str) -> None:
        assert words in refused(circle, "request", "--reason", REASON, *options, code=code)["message"]
        assert not (circle.run.home / "o").exists()

    def test_of_a_vault_without_custodians(self, bare: Clinic) -> None:
        command = ("request", "--reason", REASON, "--token", f"nueva={uri('nueva')}", "o")
        assert "nobody can open it" in refused(bare, *command, code=6)["message"]


class TestApprove:
    def test_everything_is_shown_and_typed(self, asking: Asking) -> None:
        request = asking.request(V2_PATIENT)
        out = request.with_name("ana")
        terminal = asking.clinic.terminal("--quiet", "breakglass", "approve", request, "--token", uri("ana"), out)
        terminal.expect(f"Type {V2_PATIENT} to go on: ")
        for shown in (REASON, V2_PATIENT, "nueva: nueva, serial", "2026-11-23T12:00", "1 of 3, as ana"):
            assert shown in terminal.seen
        terminal.type(f"{V2_PATIENT}\n")
        assert terminal.finish() == 0
        assert stat.S_IMODE(out.stat().st_mode) == 0o600

    def test_another_word_approves_nothing(self, asking: Asking) -> None:
        request = asking.request()
        terminal = asking.clinic.terminal("breakglass", "approve", request, "--token", uri("ana"), "o")
        terminal.expect("opens:      THE WHOLE PRACTICE")
        terminal.expect("Type practice to go on: ")
        terminal.type("ana\n")
        assert terminal.finish() == 1
        done = asking.clinic.detached("breakglass", "approve", str(request), "--token", uri("ana"), "o")
        assert (done.returncode, "THE WHOLE PRACTICE" in done.stderr) == (2, True)
        assert not (asking.clinic.run.home / "o").exists()

    def test_its_document(self, asking: Asking) -> None:
        request = asking.request(V2_PATIENT)
        command = ("breakglass", "approve", request, "--token", uri("ana"), "o")
        found = asking.clinic.run("--json", "--yes", *command).json
        assert_fields_documented("breakglass approve", found)
        assert (found["custodian"], found["patient"], found["reason"]) == ("ana", V2_PATIENT, REASON)
        journal = (asking.clinic.run.home / ".local/share/medcrypt/journal").read_text().splitlines()
        assert [line.split('"')[3] for line in journal] == ["breakglass.request", "breakglass.approve"]
        assert "already" in refused(asking.clinic, *command[1:], code=2)["message"]

    def test_a_request_of_an_older_file_is_warned_of(self, asking: Asking, tmp_path: Path) -> None:
        clinic = asking.clinic
        older = tmp_path / "older.db"
        shutil.copy(clinic.vault, older)
        clinic.encrypt("una entrada más")
        asking.approve(asking.request(V2_PATIENT), "ana")
        request = clinic.run.home / "viejo"
        token = ("--token", f"nueva={uri('nueva')}")
        clinic.run("--vault", older, "breakglass", "request", "--reason", REASON, *token, request)
        done = clinic.run("--yes", "--quiet", "breakglass", "approve", request, "--token", uri("ana"), "o")
        assert "made with an older file" in done.stderr

    def test_refused(self, asking: Asking) -> None:
        clinic, request = asking.clinic, asking.request(V2_PATIENT, hours=1)
        approve = ("approve", request, "--token", uri("ana"), "o")
        assert refused(clinic, "approve", altered(request), *approve[2:], code=5)["error"] == "not-authentic"
        assert refused(clinic, "approve", clinic.vault, *approve[2:], code=5)["error"] == "malformed"
        ended = refused(clinic, *approve, code=6, at="2026-11-22 13:00:01")
        assert (ended["error"], "BG-4" in ended["message"]) == (RULE, True)
        foreign = refused(clinic, "approve", request, "--token", uri("dora"), "o", code=6)
        assert (foreign["error"], "BG-3" in foreign["message"]) == (RULE, True)
        refused(clinic, "approve", request, "o", code=2)
        refused(clinic, "approve", request, "--token", "ana", "o", code=2)
        assert refused(clinic, "approve", request, "--token", uri("nadie"), "o", code=3)["error"] == "token-absent"
        clinic.run("--yes", "breakglass", "rotate")
        assert "BG-3" in refused(clinic, *approve, code=6)["message"]
        assert not (clinic.run.home / "o").exists()


class TestDecrypt:
    def test_one_patient(self, asking: Asking) -> None:
        clinic = asking.clinic
        theirs, other = clinic.encrypt("hola"), clinic.encrypt("de otro", V1_PATIENT)
        request, *approvals = asking.approved(V2_PATIENT)
        text = clinic.run.home / "chat"
        text.write_text(theirs + other)
        done = clinic.run("--json", "breakglass", "decrypt", request, *approvals, "--in", text, code=6)
        assert_fields_documented("breakglass decrypt", done.json)
        assert [message["text"] for message in done.json["messages"]] == ["hola", None]
        assert "BG-9" in done.json["messages"][1]["message"]
        assert "only a checkpoint" in done.stderr
        assert "BG-5" in refused(clinic, "decrypt", request, *approvals, code=6, stdin=theirs)["message"]
        problems = clinic.run("--json", "status").json["problems"]
        assert any(problem.startswith("BG-8: break-glass was used for one patient") for problem in problems)
        verified = clinic.run("--json", "status", "--token", "doctor").json
        assert any("where break-glass was used" in problem for problem in verified["problems"])
        assert [(use["scope"], use["answered"]) for use in verified["breakglass"]["uses"]] == [("patient", None)]
        clinic.run("--yes", "breakglass", "rotate", at=LATER)
        answered = clinic.run("--json", "status", at=LATER).json
        assert not any("BG-8" in problem for problem in answered["problems"])
        assert answered["breakglass"]["uses"][0]["answered"]

    def test_one_message_into_a_pipe_is_the_exact_text(self, asking: Asking) -> None:
        wire = asking.clinic.encrypt("exacto ✓")
        checkpoint = asking.clinic.run.home / "nota"
        asking.clinic.run("audit", "checkpoint", checkpoint)
        files = asking.approved(V2_PATIENT)
        done = asking.clinic.run("breakglass", "decrypt", *files, "--since", checkpoint, stdin=wire)
        assert done.stdout == "exacto ✓"
        assert "only a checkpoint" not in done.stderr

    def test_a_file_that_lacks_what_a_checkpoint_tells(self, asking: Asking, tmp_path: Path) -> None:
        clinic, older = asking.clinic, tmp_path / "older.db"
        wire = clinic.encrypt("hola")
        files = asking.approved(V2_PATIENT)
        shutil.copy(clinic.vault, older)
        clinic.encrypt("otra")
        checkpoint = clinic.run.home / "nota"
        clinic.run("audit", "checkpoint", checkpoint)
        env = {"MEDCRYPT_VAULT": str(older)}
        refused(clinic, "decrypt", *files, "--since", checkpoint, stdin=wire, code=7, env=env)

    def test_refused(self, asking: Asking) -> None:
        clinic = asking.clinic
        wire = clinic.encrypt("hola")
        request, ana, carla = asking.approved(V2_PATIENT, hours=1)
        decrypt = ("decrypt", request)
        for given, code, words in (
            ((), 6, "BG-2"),
            ((ana,), 6, "BG-2"),
            ((ana, ana), 6, "BG-2"),
            ((ana, altered(carla)), 5, "BG-3"),
            ((ana, request), 5, "not a break-glass approval"),
            ((ana, clinic.run.home / "nada"), 2, "cannot be read"),
        ):
            assert words in refused(clinic, *decrypt, *given, code=code, stdin=wire)["message"]
        assert refused(clinic, *decrypt, ana, carla, code=5, stdin="hola")["error"] == "malformed"
        assert "BG-4" in refused(clinic, *decrypt, ana, carla, code=6, stdin=wire, at=LATER[:-1] + "1")["message"]
        altered_request = ("decrypt", altered(request), ana, carla)
        assert refused(clinic, *altered_request, code=5, stdin=wire)["error"] == "not-authentic"
        wrong = refused(clinic, *decrypt, ana, carla, "--token", uri("dora"), code=3, stdin=wire)
        assert wrong["error"] == "token-unfit"
        second = asking.request(V2_PATIENT, name="segundo")
        foreign = refused(clinic, "decrypt", second, ana, carla, code=6, stdin=wire)
        assert (foreign["error"], "BG-3" in foreign["message"]) == (RULE, True)
        approvals = [asking.approve(second, who) for who in ("ana", "berta")]
        assert clinic.run("breakglass", "decrypt", second, *approvals, stdin=wire).stdout == "hola"

    def test_no_pin_is_asked_for_where_the_token_is_not(self, asking: Asking) -> None:
        wire = asking.clinic.encrypt("hola")
        files = asking.approved(V2_PATIENT)
        for directory in (asking.clinic.directory / "softhsm" / "tokens").iterdir():
            if b"nueva".ljust(32) in (directory / "token.object").read_bytes():
                shutil.rmtree(directory)
        found = refused(
            asking.clinic, "decrypt", *files, code=3, stdin=wire, env={"MEDCRYPT_PIN_SOURCE": "file:/nowhere"}
        )
        assert found["error"] == "token-absent"


class TestRecover:
    def test_the_practice_on_another_token(self, asking: Asking) -> None:
        clinic = asking.clinic
        wire = clinic.encrypt("hola")
        files = asking.approved()
        assert "for the whole practice" in refused(clinic, "decrypt", *files, code=2, stdin=wire)["message"]
        terminal = clinic.terminal("breakglass", "recover", *files)
        terminal.expect("retires every other token")
        terminal.expect("Type practice to go on: ")
        terminal.type("nueva\n")
        assert terminal.finish() == 1
        done = clinic.run("--json", "--yes", "breakglass", "recover", *files)
        assert_fields_documented("breakglass recover", done.json)
        assert (done.json["token"], done.json["retired"]) == ("nueva", ["doctor"])
        assert done.json["certificate"]["action"] == "breakglass.recover"
        for then in ("audit public-key", "breakglass rotate", "patient repair", "vault backup"):
            assert then in done.stderr
        assert clinic.run("decrypt", stdin=wire).stdout == "hola"
        clinic.run("audit", "verify")
        assert "BG-5" in refused(clinic, "recover", *files, code=6)["message"]
        assert clinic.run("status", "--token", "doctor", code=7)
        problems = clinic.run("--json", "status").json["problems"]
        for word in ("BG-8: break-glass was used for the whole practice", "with which the present ceremony was held"):
            assert any(word in problem for problem in problems)
        assert clinic.run("patient", "list").stdout.count("COMPROMISED") == 3

    def test_one_that_is_interrupted_goes_on_with_the_same_command(self, asking: Asking) -> None:
        clinic = asking.clinic
        files = asking.approved()
        program = (
            "import sys, medcrypt_hsm.breakglass.recover as r\n"
            "def stop(*a): raise KeyboardInterrupt\n"
            "r.rekey_locked = stop\n"
            "from medcrypt_hsm.cli import enter\n"
            "sys.argv = ['medcrypt', *sys.argv[1:]]\n"
            "enter()"
        )
        command = [sys.executable, "-c", program, "--yes", "breakglass", "recover", *map(str, files)]
        stopped = subprocess.run(command, env=clinic.run.environment(), capture_output=True, text=True)
        assert stopped.returncode == 130, stopped.stderr
        problems = clinic.run("--json", "status").json["problems"]
        assert any("run the same 'medcrypt breakglass recover' again" in problem for problem in problems)
        done = clinic.run("--json", "--yes", "breakglass", "recover", *files, at="2026-11-25 12:00:00")
        assert done.json["retired"] == ["doctor"], "the request has ended meanwhile, and this was begun in time"
        assert not any("again" in problem for problem in clinic.run("--json", "status").json["problems"])

    def test_long_after_the_last_month_was_opened(self, asking: Asking) -> None:
        at = "2027-02-10 12:00:00"
        request = asking.request(at=at)
        approvals = [asking.approve(request, who, at=at) for who in ("ana", "carla")]
        done = asking.clinic.run("--yes", "breakglass", "recover", request, *approvals, at=at)
        assert "'medcrypt rotate --to 2027-02'" in done.stderr
        asking.clinic.run("rotate", "--to", "2027-02", at=at)

    def test_one_patient_is_not_the_practice(self, asking: Asking) -> None:
        found = refused(asking.clinic, "recover", *asking.approved(V2_PATIENT), code=2)
        assert "breakglass decrypt" in found["hint"]


def test_the_policy_counts_for_the_token_that_is_brought_in(asking: Asking) -> None:
    """Its vendor's certificates meet a policy of device-attested; a request that failed for want of them is unused."""
    asking.clinic.run("vault", "policy", "--require-attestation", "device-attested")
    files = asking.approved()
    before = asking.clinic.run("--json", "status").json["entries"]
    assert "--roots" in refused(asking.clinic, "recover", *files, code=6)["hint"]
    empty = asking.clinic.run.home / "certificates"
    empty.mkdir()
    assert "no certificate in" in refused(asking.clinic, "recover", *files, "--roots", empty, code=2)["message"]
    assert asking.clinic.run("--json", "status").json["entries"] == before


def test_the_log_tells_and_exports_it(asking: Asking) -> None:
    clinic = asking.clinic
    wire = clinic.encrypt("hola")
    clinic.run("breakglass", "decrypt", *asking.approved(V2_PATIENT), stdin=wire)
    entries = clinic.run("--json", "audit", "show", "--action", "breakglass").json["entries"]
    assert [entry["action"] for entry in entries] == [
        "breakglass.ceremony",
        "breakglass.ceremony",
        "breakglass.open",
        "breakglass.read",
        "breakglass.close",
    ]
    assert REASON in entries[3]["detail"]["enclosure"]
    about = clinic.run("--json", "audit", "show", "--patient", V2_PATIENT).json["entries"]
    assert {"breakglass.read", "message.decrypt"} <= {entry["action"] for entry in about}
    for form in ("jsonl", "csv", "cef"):
        clinic.run("audit", "export", "--format", form, f"log.{form}")
    lines = (clinic.run.home / "log.cef").read_text().splitlines()
    found = {line.split("|")[4]: line.split("|")[6] for line in lines if "|breakglass." in line}
    assert (found["breakglass.open"], found["breakglass.close"]) == ("9", "5")


def test_a_file_that_is_no_vault_of_these_custodians(circle: Clinic, tmp_path: Path) -> None:
    """A request made with another vault's file finds no share: the custodians' tokens know whose they are."""
    other = ("--vault", str(tmp_path / "other.db"))
    circle.run(*other, "vault", "create", "--token", f"doctor={circle.uri}")
    circle.run("--yes", *other, "breakglass", "ceremony", *shares("dora", "berta"))
    request = circle.run.home / "ajeno"
    circle.run(*other, "breakglass", "request", "--reason", REASON, "--token", f"nueva={uri('nueva')}", request)
    assert "BG-3" in refused(circle, "approve", request, "--token", uri("ana"), "o", code=6)["message"]
    approvals = []
    for who in ("dora", "berta"):
        approvals.append(circle.run.home / who)
        circle.run("--yes", "breakglass", "approve", request, "--token", uri(who), approvals[-1])
    assert "BG-3" in refused(circle, "recover", request, *approvals, code=6)["message"]
