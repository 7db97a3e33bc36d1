"""A request on a token that opens nothing yet: what may be asked for, and what the token keeps of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medcrypt_hsm.breakglass.request import RequestOptions, end_request, unwrap_seed, withdraw
from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.errors import MedcryptError, TokenUnfit, UsageError
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.statements import Request, read
from tests.support.breakglass import Circle

ASKED = RequestOptions("nueva", "La doctora no despierta", "Dr. Guardia Ejemplo", "EXP-1")


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"name": "a b"}, UsageError, "'a b' is no name for a token"),
        ({"name": "bg-12345678"}, UsageError, "'bg-12345678' is no name for a token"),
        ({"reason": " \n"}, UsageError, "a reason is needed, of at most 1000 characters"),
        ({"reason": "\ud800"}, UsageError, "what was given is not Unicode text"),
        ({"patient": "EXP\n1"}, UsageError, "patient id"),
        ({"hours": 0}, BreakGlassRefused, "0 hours are not possible"),
        ({"hours": 73}, BreakGlassRefused, "73 hours are not possible"),
    ],
)
def test_what_cannot_be_asked_for(changed: dict[str, object], error: type[MedcryptError], words: str) -> None:
    ASKED.check()
    with pytest.raises(error, match=words) as refused:
        replace(ASKED, **changed).check()
    assert refused.value.hint


def test_the_token_keeps_the_newest_request_until_it_is_taken_back(circle: Circle) -> None:
    circle.ceremony()
    with circle.hand("nueva").open() as token:
        before = token.names()
    first, second = (read(circle.request("EXP-1"), Request) for _ in range(2))
    with circle.hand("nueva").open() as token:
        end_request(token, first)  # it is another's turn: nothing of the newer one goes
        with unwrap_seed(token, second) as seed:
            assert xwing.public_key(seed.value) == second.told.key
        with pytest.raises(TokenUnfit, match=r"this request was not made with token .*, or was taken back since"):
            unwrap_seed(token, first)
        withdraw(token, second.told.vault_id)
        with pytest.raises(TokenUnfit, match="or was taken back since"):
            unwrap_seed(token, second)
        assert token.names() == before
