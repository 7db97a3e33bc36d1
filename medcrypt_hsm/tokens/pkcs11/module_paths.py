"""Where the PKCS#11 modules of this machine are: a list of paths, nothing is loaded here.

The first of these that names any module is used, so that naming one keeps every other library out of the process:
the URI's ``module-path``; the environment variable MEDCRYPT_PKCS11_MODULE; the caller's list, from a config file;
p11-kit's module files (p11-kit(8), pkcs11.conf(5)).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t

VARIABLE = "MEDCRYPT_PKCS11_MODULE"
P11_KIT_FILES = ("/usr/share/p11-kit/modules", "/etc/pkcs11/modules")  # the later replaces files of the same name
P11_KIT_MODULES = ("/usr/lib/*/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11", "/usr/local/lib/pkcs11")


def module_paths(module_path: str | None = None, configured: Sequence[str] = ()) -> list[str]:
    """Absolute paths, each library once. Those that are named explicitly are not looked at; p11-kit's exist."""
    if module_path is not None:
        return [module_path]
    for named, origin in (
        (os.environ.get(VARIABLE, "").split(os.pathsep), VARIABLE),
        (configured, t("the config file")),
    ):
        paths = [path for path in named if path]
        for path in paths:
            if not os.path.isabs(path):
                raise UsageError(
                    t("{origin} names the PKCS#11 module {path!r}", origin=origin, path=path), "give its absolute path"
                )
        if paths:
            return _once(paths)
    return p11_kit_modules()


def p11_kit_modules(
    directories: Sequence[str] = P11_KIT_FILES, libraries: Sequence[str] = P11_KIT_MODULES
) -> list[str]:
    """The libraries that p11-kit's module files name and that are there, in order of file name."""
    files: dict[str, str] = {}
    for directory in directories:
        for file in sorted(glob.glob("*.module", root_dir=directory)):
            files[file] = os.path.join(directory, file)
    found: list[str] = []
    for _, file in sorted(files.items()):
        settings = _settings(file)
        name = settings.get("module", "")
        if not name or settings.get("trust-policy") == "yes":  # a store of CA certificates, not a token
            continue
        # An absolute name stands for itself: os.path.join drops what is before it.
        places = [os.path.join(directory, name) for directory in ("/", *_existing(libraries))]
        found += [place for place in places if os.path.exists(place)][:1]
    return _once(found)


def _settings(file: str) -> dict[str, str]:
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            pairs = [line.split("#", 1)[0].partition(":") for line in lines]
    except OSError:  # a file of another user's: its module is not ours to use either
        return {}
    return {key.strip(): value.strip() for key, _, value in pairs}


def _existing(patterns: Sequence[str]) -> list[str]:
    return [directory for pattern in patterns for directory in sorted(glob.glob(pattern))]


def _once(paths: Iterable[str]) -> list[str]:
    """Two paths to one file are one module: PKCS#11 may be initialised only once in a process."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), path)
    return list(first.values())
