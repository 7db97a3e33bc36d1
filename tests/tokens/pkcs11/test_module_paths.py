"""Which PKCS#11 modules are used, in which order, and what p11-kit's files say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.tokens.pkcs11.module_paths import VARIABLE, module_paths, p11_kit_modules


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_first_source_that_names_a_module_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module_paths(None, ["/c.so"]) == ["/c.so"]
    monkeypatch.setenv(VARIABLE, "/a.so" + os.pathsep + "/b.so" + os.pathsep)
    assert module_paths(None, ["/c.so"]) == ["/a.so", "/b.so"]
    assert module_paths("/u.so", ["/c.so"]) == ["/u.so"]


def test_one_library_is_one_module(tmp_path: Path) -> None:
    (tmp_path / "m.so").touch()
    (tmp_path / "other.so").symlink_to("m.so")
    assert module_paths(None, [f"{tmp_path}/m.so", f"{tmp_path}/other.so"]) == [f"{tmp_path}/m.so"]


def test_relative_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="config file"):
        module_paths(None, ["m.so"])
    monkeypatch.setenv(VARIABLE, "./m.so")
    with pytest.raises(UsageError, match=VARIABLE):
        module_paths()


def test_p11_kit_files(tmp_path: Path) -> None:
    system, admin, libraries = tmp_path / "system", tmp_path / "admin", tmp_path / "lib"
    for directory in (system, admin, libraries):
        directory.mkdir()
    for name in ("absolute.so", "relative.so", "replaced.so", "replacing.so"):
        (libraries / name).touch()
    (system / "a.module").write_text(f"# comment\nmodule: {libraries}/absolute.so # why\n")
    (system / "b.module").write_text("module:relative.so\npriority: 1\n")
    (system / "c.module").write_text("module: missing.so\n")
    (system / "d.module").write_text(f"module: {libraries}/replaced.so\n")
    (system / "e.module").write_text("module: relative.so\n")
    (system / "f.module").write_text("module: absolute.so\ntrust-policy: yes\n")
    (system / "g.module").write_text("remote: |ssh elsewhere\n")
    (system / "h.module").write_bytes(b"\xff\xfe module\n")
    (system / "i.txt").write_text("module: replacing.so\n")
    (admin / "d.module").write_text("module: replacing.so\n")
    found = p11_kit_modules([str(system), str(admin), str(tmp_path / "none")], [f"{tmp_path}/li*"])
    assert [Path(path).name for path in found] == ["absolute.so", "relative.so", "replacing.so"]


def test_this_machines_softhsm_is_found() -> None:
    assert any(path.endswith("libsofthsm2.so") for path in p11_kit_modules())


def test_nothing_is_loaded_before_a_uri_asks_for_it() -> None:
    program = "import sys, medcrypt_hsm.tokens; sys.exit('pkcs11' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
