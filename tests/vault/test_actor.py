"""Who acts, by the kernel and the user database alone."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from medcrypt_hsm.vault import actor

UNUSED = 3_999_999_999


def test_a_user_is_told_by_name_and_number() -> None:
    assert actor.of(0) == f"{pwd.getpwuid(0).pw_name} (uid 0)"


def test_a_user_whom_the_database_does_not_know() -> None:
    assert actor.of(UNUSED) == f"unknown (uid {UNUSED})"


def test_who_logged_in_is_told_where_it_is_another() -> None:
    root = actor.of(0)
    assert actor.of(UNUSED, 0) == f"unknown (uid {UNUSED}), logged in as {root}"
    assert actor.of(0, 0) == root


def test_this_process_is_its_real_user() -> None:
    assert actor.of_this_process() == actor.of(os.getuid(), actor.loginuid_of("self"))


def test_a_process_that_is_not_there_has_no_login() -> None:
    assert actor.loginuid_of(0) is None


@pytest.mark.parametrize("variable", ["LOGNAME", "USER", "LNAME", "USERNAME"])
def test_the_environment_names_nobody(variable: str) -> None:
    code = "from medcrypt_hsm.vault import actor; print(actor.of_this_process())"
    env = os.environ | {variable: "dr.garcia"}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert told == f"{actor.of_this_process()}\n"
