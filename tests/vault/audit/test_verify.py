"""A log is verified without a token: nothing in vault/audit imports one, and none is loaded in doing so."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.two_readers_breakglass import Emergency

PACKAGE = Path(__file__).parents[3] / "medcrypt_hsm"
MODULES = sorted((PACKAGE / "vault" / "audit").glob("*.py"))
MAY = ("crypto", "errors", "month", "notation", "version", "vault.audit", "vault.store")

VERIFY = """
import json, sys
from contextlib import closing
from medcrypt_hsm.vault.audit.verify import verify_with_public_keys
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
with closing(open_store(Location.parse(sys.argv[1]))) as file:
    verified = verify_with_public_keys(file, [bytes.fromhex(sys.argv[2])])
print(json.dumps([verified.sequence, sorted(sys.modules)]))
"""


def imported(path: Path) -> Iterator[str]:
    """Modules of the package, also those that are imported late or for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert not node.level
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.removeprefix("medcrypt_hsm.") for name in names if name.startswith("medcrypt_hsm."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_token_is_imported(path: Path) -> None:
    for name in imported(path):
        assert name.startswith(tuple(f"{allowed}." for allowed in MAY)), name


def test_no_token_is_loaded_where_a_log_with_everything_in_it_is_verified(tmp_path: Path) -> None:
    """Re-keys, a ceremony, and a use of break-glass, for which more is loaded late."""
    log = Emergency().ready()
    log.noted().rotated()
    path = log.write(tmp_path / "log.db")
    path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, path, log.doctor.spki.hex()],
        cwd=PACKAGE.parent, check=True, capture_output=True, text=True,
    )  # fmt: skip
    sequence, loaded = json.loads(done.stdout)
    assert sequence == len(log.rows)
    assert "medcrypt_hsm.vault.audit.consent" in loaded
    backends = ("medcrypt_hsm.tokens", "pkcs11", "ykman", "yubikit", "smartcard")
    assert [name for name in loaded if name.startswith(backends)] == []
