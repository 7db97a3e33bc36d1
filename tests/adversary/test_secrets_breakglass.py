"""No seed, share, keyset, PIN or plaintext in what break-glass says or leaves: logs at DEBUG, objects, errors, files.

A whole emergency by the library, from the ceremony to the rotation after a recovery, with what goes wrong on the way.
What Secret held is remembered, searched for everywhere, and must have been wiped (test_secrets_inside.py).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.breakglass import emergency
from medcrypt_hsm.errors import MedcryptError, TokenError
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.audit.statements import Approval, Request, read
from medcrypt_hsm.vault.store.rows import Location
from tests.adversary.test_secrets_inside import Remembered, Said, _all_of_the_package, made_before
from tests.adversary.test_secrets_inside import remembered as remembered
from tests.support.breakglass import CUSTODIANS, Circle, pin_of
from tests.support.practice import Practice, pin
from tests.support.secret_search import Secrets, tree
from tests.support.softhsm import USER_PIN, WRONG_PIN, SoftHsm

TEXT = "Biopsia: carcinoma ductal infiltrante, receptores positivos; cita con oncología el lunes"
REASON = "La doctora tuvo un accidente y no despierta"


def on_tokens(circle: Circle) -> dict[str, bytes]:
    """Every object that is no key, as whoever has the PIN reads it."""
    found = {}
    for who, uri in circle.uris.items():
        with suppress(TokenError), open_token(uri, pin) as token:  # one that is open here already is looked at later
            for name in token.names():
                with suppress(MedcryptError):
                    found[f"{name} of {who}"] = b"\n".join(token.read_objects(name))
    return found


def test_nothing_of_an_emergency_slips_out(
    tmp_path: Path,
    softhsm: SoftHsm,
    remembered: Remembered,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    older = made_before()
    temporary, machine = tmp_path / "tmp", tmp_path / "machine"
    for directory in (temporary, machine):
        directory.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(temporary))
    said, files = Said(), {}
    uris = {name: softhsm.make_token() for name in ("doctor", *CUSTODIANS, "nueva")}
    practice = Practice(machine / "practice" / "vault.db", uris["doctor"])
    practice.create().close()
    circle = Circle(practice, uris, machine / "homes")

    def failing(call: Any, *args: Any, **more: Any) -> None:
        with pytest.raises(MedcryptError) as caught:
            call(*args, **more)
        said.error(getattr(call, "__name__", "call"), caught.value)

    def looked(where: str, *roots: object) -> None:
        said.look_at(where, *roots, *_all_of_the_package(older))
        files.update({f"{name} after {where}": content for name, content in tree(machine).items()})
        files.update({f"{name} after {where}": content for name, content in on_tokens(circle).items()})
        assert list(temporary.iterdir()) == []

    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        (wire,) = vault.encrypt("EXP-1", TEXT)
        shares = {name: uris[name] for name in CUSTODIANS}
        failing(vault.custodians.ceremony, shares, 2, lambda name: lambda info: WRONG_PIN, OtherTokens(pin))
        certificate = vault.custodians.ceremony(shares, 2, pin_of, OtherTokens(pin))
        files["certificate"] = certificate.document + certificate.text.encode()
        vault.custodians.reconstruct(shares, pin_of, OtherTokens(pin))
        looked("ceremony", vault, certificate)
        assert any(name.startswith("practice/vault.db-wal") for name in tree(machine))
    practice.clock.forward(hours=1)
    circle.record(circle.drill("ana"))

    for patient in ("EXP-1", ""):
        request = circle.request(patient)
        approvals = [circle.approve(request, who) for who in ("ana", "berta")]
        files |= {f"request {patient}": request, f"approval {patient}": b"".join(approvals)}
        looked(f"approval {patient}", read(request, Request), [read(a, Approval) for a in approvals], circle.told)
        failing(circle.decrypt if patient else circle.recover, request, approvals[:1])
        failing(circle.decrypt if patient else circle.recover, request, approvals, who="ana")
        failing(circle.approve, request.replace(b"no despierta", b"si despierta"), "carla")
        if patient:
            (opened,) = circle.decrypt(request, approvals, wire)
            assert opened.text == TEXT
            said.look_at("read", opened)
        else:
            given = [read(approval, Approval) for approval in approvals]
            unlocked, certificate = emergency.recover(
                Location.parse(practice.path), circle.hand("nueva"), read(request, Request), given
            )
            looked("recovery", unlocked, certificate)
            unlocked.lock()
            unlocked.file.close()
    practice.clock.forward(hours=1)
    circle.rotate(token="nueva")
    looked("rotation")

    known = Secrets()
    for number, (_, key) in enumerate(remembered.made):
        known.add_key(f"secret {number}", key)
    known.add_word("PIN", USER_PIN)
    known.add_word("wrong PIN", WRONG_PIN)
    known.add_text("plaintext", TEXT)
    assert len(remembered.made) > 60  # seeds, coefficients, shares, keysets, message keys
    assert len(files) > 60
    assert known.found_in(remembered.made[-1][1].hex().encode()), "the search is blind"
    assert said.leaks(known) == []
    once = {content: name for name, content in files.items()}
    assert [(name, leak) for content, name in once.items() for leak in known.found_in(content)] == []
    assert known.found_in(caplog.text.encode()) == []
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [secret for secret, _ in remembered.made if any(secret._value)] == [], "not wiped"
    assert [secret for secret in remembered.empty if any(secret._value)] == [], "not wiped"

    # In the log and beside it the reason is sealed; only what people carry has it.
    reasons = [name for name, content in files.items() if REASON.encode() in content or b"no despierta" in content]
    assert reasons
    assert all(name.startswith("request ") for name in reasons), reasons
