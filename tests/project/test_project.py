"""The tree itself: what lies where, what the locks hold, what the program loads, and that it speaks of itself alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.command_line import CommandLine

TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "docs",
    "medcrypt_hsm",
    "pyproject.toml",
    "requirements-dev.lock",
    "requirements.lock",
    "scripts",
    "softhsm",
    "tests",
}
LOCKS = ["requirements.lock", "requirements-dev.lock"]
LONGEST_MODULE = 500
# Handed to others alone, and read without the rest of the project: one file each, on purpose.
ONE_FILE = {
    "scripts/standalone/patient.py": 895,
    "scripts/standalone/recover.py": 1377,
    "scripts/standalone/verify_audit.py": 1392,
}

# Put together here, so that this file does not contain what it forbids.
FOREIGN = {
    "a package index": "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "--" + "(extra-)?index-url"]),
    "a link for pip": "--" + "find-links",
    "somebody's directory": rf"(?<![\w.~-])/(ho{''}me/\w|Us{''}ers/\w|ro{''}ot/|wo{''}rk/|op{''}t/)",
    "somebody's Python": "py" + "env/(versions|shims)",
}


@cache
def project_files() -> list[Path]:
    """What is or would be committed; in a copy without git, everything but what tools leave."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if (ROOT / ".git").exists() and listing.returncode == 0:
        files = [ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name]
        return [path for path in files if path.is_file()]
    return list(_walk(ROOT))


def _walk(directory: Path) -> Iterator[Path]:
    left_behind = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()} | {".git"}
    for path in directory.iterdir():
        if any(path.match(pattern) for pattern in left_behind):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def test_top_level_holds_what_was_agreed() -> None:
    entries = {path.relative_to(ROOT).parts[0] for path in project_files()}
    assert {entry for entry in entries if not entry.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("what", FOREIGN)
def test_the_tree_speaks_of_the_project_alone(what: str) -> None:
    pattern = re.compile(FOREIGN[what])
    found = []
    for path in project_files():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if pattern.search(line)]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_the_patterns_find_what_they_are_for() -> None:
    samples = {
        "a package index": "https://py" + "pi.org/simple",
        "a link for pip": "--" + "find-links wheels",
        "somebody's directory": "see /ho" + "me/alice/medcrypt",
        "somebody's Python": ".py" + "env/shims/python3",
    }
    for what, sample in samples.items():
        assert re.search(FOREIGN[what], sample), what
    assert not re.search(FOREIGN["somebody's directory"], "https://example.org/ho" + "me/alice")


def requirements(lock: str) -> dict[str, list[str]]:
    """Each ``name==version`` of a lock with its hashes. Anything else in the file is an error."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / lock).read_text().replace("\\\n", " ").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            requirement, *options = text.split()
            assert re.fullmatch(r"[a-z0-9.-]+==[0-9a-z.]+", requirement), line
            assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options), line
            found[requirement] = options
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_has_hashes_and_no_url(lock: str) -> None:
    assert requirements(lock)
    assert all(requirements(lock).values())
    assert "://" not in (ROOT / lock).read_text()


def test_the_locks_agree_and_cover_the_project() -> None:
    runtime, everything = (requirements(lock) for lock in LOCKS)
    assert runtime.items() <= everything.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for lock, wanted in [
        (runtime, project["project"]["dependencies"]),
        (everything, project["project"]["optional-dependencies"]["dev"] + project["build-system"]["requires"]),
    ]:
        names = {requirement.partition("==")[0] for requirement in lock}
        assert {re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in wanted} <= names


def test_no_module_is_too_long() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_bytes().splitlines()) for path in project_files() if path.suffix == ".py"
    }
    assert {
        str(path): length for path, length in lengths.items() if length > ONE_FILE.get(str(path), LONGEST_MODULE)
    } == {}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_needs_no_token_no_cryptography_and_no_vault(medcrypt: CommandLine, option: str) -> None:
    command = medcrypt.command(option)
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]],
        env=medcrypt.environment(),
        cwd=medcrypt.home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "medcrypt_hsm" in loaded
    assert not loaded & {"cryptography", "pkcs11", "qrcode", "sqlite3"}
    assert list(medcrypt.home.iterdir()) == [], "asking for help must write nothing"


def test_both_ways_to_start_it_are_one_program(medcrypt: CommandLine) -> None:
    script = Path(sys.executable).with_name("medcrypt")
    done = subprocess.run([script, "--version"], env=medcrypt.environment(), capture_output=True, text=True, check=True)
    assert done.stdout == medcrypt("--version").stdout


def test_every_test_of_a_full_run_is_found() -> None:
    """A run of hours must not find out at its end that it left something out."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "MEDCRYPT_TEST_FULL": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
