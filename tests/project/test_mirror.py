"""tests/ mirrors the package: every module outside cli has its test file, or stands here with its reason."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkout import ROOT

PACKAGE, TESTS = ROOT / "medcrypt_hsm", ROOT / "tests"
ELSEWHERE = {  # module → why it has no file of its own, and which tests hold it
    "session/begin.py": "the agent's first half minute: tests/session/test_agent.py",
    "session/client.py": "the command's side: tests/session/test_agent.py",
    "session/dbus.py": "what a locked screen is told by: tests/session/test_screen.py",
    "session/desk.py": "whose turn it is: tests/session/test_agent.py",
    "session/frames.py": "hostile ones: tests/adversary/test_session.py",
    "session/remote.py": "the library over a session: tests/session/test_agent.py",
    "session/requests.py": "hostile ones: tests/adversary/test_session.py",
    "session/service.py": "the agent's answers: tests/session/test_agent.py, tests/adversary/test_session.py",
    "session/start.py": "the command's half of begin.py: tests/session/test_agent.py",
    "session/values.py": "what status and verify give: tests/session/test_agent.py",
    "vault/ratchet.py": "laws that hold for every key and month: tests/properties/test_ratchet.py",
}


def modules() -> list[str]:
    named = ("__init__.py", "__main__.py")
    found = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name not in named)
    return sorted(str(path) for path in found if path.parts[0] != "cli")


def has_tests(module: str) -> bool:
    """tests/<folder>/test_<module>.py, or test_<module>_<aspect>.py beside it."""
    path = Path(module)
    return any((TESTS / path.parent).glob(f"test_{path.stem}.py")) or any(
        (TESTS / path.parent).glob(f"test_{path.stem}_*.py")
    )


def test_every_module_has_its_test_file_or_a_reason() -> None:
    assert [module for module in modules() if not has_tests(module) and module not in ELSEWHERE] == []


def test_nobody_stands_on_the_list_who_has_tests_or_is_gone() -> None:
    known = modules()
    assert [module for module in ELSEWHERE if module not in known or has_tests(module)] == []


def test_each_reason_names_tests_that_are_there() -> None:
    for module, reason in ELSEWHERE.items():
        named = [word.strip(",.;") for word in reason.split() if word.startswith("tests/")]
        assert named, module
        assert all((ROOT / name).exists() for name in named), module
