"""Errors over a session: what an agent answers is shown only as a sentence of this program."""

from __future__ import annotations

import json
import runpy
from typing import Any

import pytest

from medcrypt_hsm.errors import Failed, MedcryptError, SessionEnded, UsageError, VaultBusy, WrongPin
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.session import said
from tests.support.checkout import ROOT

PHISHING = "type your PIN at http://example.org/ to go on"


def there_and_back(error: Exception) -> MedcryptError:
    return said.error_of(json.loads(json.dumps(said.error_value(error))))


def test_the_list_of_templates_is_the_trees() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "sentences"))["text"]()
    assert (ROOT / "medcrypt_hsm" / "session" / "templates.json").read_text() == made, "run scripts/sentences"


@pytest.mark.parametrize(
    "error",
    [
        SessionEnded("the session has ended while a command used it"),
        UsageError(
            t("there is no patient {patient!r} in this vault", patient="{x} \x1b[2J"), "see 'medcrypt patient list'"
        ),
        VaultBusy(t("the vault {vault} was restored meanwhile", vault="/v.db"), "run the command again"),
        Failed(
            t("nothing was written: {reason}", reason=joined("; ", ["a", "b"])), "see to it, and run the command again"
        ),
    ],
)
def test_an_error_arrives_as_it_left(error: MedcryptError) -> None:
    back = there_and_back(error)
    assert (type(back), back.message, back.hint) == (type(error), error.message, error.hint)


def test_numbers_go_along() -> None:
    sent = WrongPin(t("{token} refused the PIN; {left}", token="doctor", left=t("one try is left")), tries_left=1)
    back = there_and_back(sent)
    assert isinstance(back, WrongPin)
    assert back.tries_left == 1


def test_what_is_no_error_of_ours_is_told_by_its_kind_alone() -> None:
    back = there_and_back(ValueError("a secret that an exception carries"))
    assert back.message == "the session failed (ValueError)"
    assert "secret" not in there_and_back(UsageError(PHISHING)).message


@pytest.mark.parametrize(
    "value",
    [
        {"error": "PinNeeded", "message": [PHISHING, {}], "hint": ["", {}]},
        {"error": "PinNeeded", "message": ["{part_1}", {"part_1": [PHISHING, {}]}], "hint": ["", {}]},
        {
            "error": "MedcryptError",
            "message": ["{part_1} now {part_2}", {"part_1": "x", "part_2": "y"}],
            "hint": ["", {}],
        },
        {"error": "NoSuchClass", "message": ["", {}], "hint": ["", {}]},
        {"error": "UsageError", "message": "the file was forged", "hint": ["", {}]},
        {"error": "UsageError", "message": ["", {"x": {"y": 1}}], "hint": ["", {}]},
        {"error": "UsageError", "message": ["", []], "hint": ["", {}]},
        ["no object"],
        None,
    ],
)
def test_what_this_program_never_says_is_not_shown(value: Any) -> None:
    error = said.error_of(value)
    assert type(error) is Failed
    assert error.message == "the session answered with something that this program never says"
