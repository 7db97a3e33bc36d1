"""Rows of scripts/bench about files: the stream in memory, and whole files on the disk, beside bare AES-GCM and age."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.bench.ratio import ROOT, Peak, at_least, in_turns, report, report_memory, report_missing, timed

CHUNK = 1 << 16

# One operation in a process of its own; prints seconds, and the most memory that it ever had (KiB).
MEASURED = """
import os, re, sys, time
from pathlib import Path
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from medcrypt_hsm import Vault

what, vault, source, target = sys.argv[1:]

def bare():
    cipher, chunk = AESGCM(bytes(32)), 1 << 16
    with open(source, "rb", buffering=0) as given, open(target, "xb") as out:
        counter = 0
        while piece := given.read(chunk):
            out.write(cipher.encrypt(counter.to_bytes(12, "big"), piece, b""))
            counter += 1
        out.flush()
        os.fsync(out.fileno())

def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

if what == "bare":
    seconds = timed(bare)
else:
    with Vault.open(vault, pin=lambda info: os.environ["BENCH_PIN"]) as opened:
        if what == "encrypt":
            seconds = timed(lambda: opened.files.encrypt("EXP-FILE", Path(source), Path(target)))
        else:
            seconds = timed(lambda: opened.files.decrypt(Path(source), Path(target)))
print(seconds, re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


def encrypting(create: Callable[..., Any], directory: Path, rounds: int, megabytes: int) -> None:
    _in_memory(rounds, megabytes)
    vault, work = directory / "files.db", directory / "files"
    with create(vault) as made:
        made.patients.add("EXP-FILE", unconfirmed=True)
    work.mkdir()
    (large := work / "large").write_bytes(os.urandom(1 << 20) * megabytes)
    (small := work / "small").write_bytes(bytes(1 << 20))
    peaks: dict[str, int] = {}

    def run(what: str, source: Path, target: Path) -> float:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, what, str(vault), str(source), str(target)],
            check=True, capture_output=True, text=True, cwd=ROOT,
            env=os.environ | {"BENCH_PIN": "123456"},
        )  # fmt: skip
        seconds, peak = done.stdout.split()
        name = f"{what} {source.stem}"
        peaks[name] = max(peaks.get(name, 0), int(peak))
        return float(seconds)

    def encrypt(source: Path) -> float:
        target = work / f"{source.name}.mcf"
        target.unlink(missing_ok=True)
        return run("encrypt", source, target)

    def bare() -> float:
        (work / "bare").unlink(missing_ok=True)
        return run("bare", large, work / "bare")

    def decrypt(source: Path) -> float:
        (out := work / "out").mkdir()
        try:
            return run("decrypt", source, out)
        finally:
            shutil.rmtree(out)

    encrypt(small)
    decrypt(work / "small.mcf")
    ours, theirs = in_turns(rounds, lambda: encrypt(large), bare)
    what = f"encrypt a file of {megabytes:,} MiB (bare: read, GCM, write, sync)"
    report(what, ours, theirs, at_least(0.7), peaks["encrypt large"])
    _beside_age(work, large, rounds, peaks, lambda: encrypt(large), lambda: decrypt(work / "large.mcf"))
    for what in ("encrypt", "decrypt"):
        report_memory(f"  {what} a file of 1 MiB", peaks[f"{what} small"])


def _in_memory(rounds: int, megabytes: int) -> None:
    """The stream alone, from memory into nothing, and the same calls of AES-GCM on the same chunks."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from medcrypt_hsm.crypto.secret import Secret
    from medcrypt_hsm.messages.wire import files
    from medcrypt_hsm.messages.wire.files import FileHeader
    from medcrypt_hsm.month import Month

    data = memoryview(os.urandom(1 << 20) * min(megabytes, 256))
    head = files.head(bytes(8), Month(0), "d", bytes(7), bytes(12))
    header, metadata = FileHeader.parse(head + bytes(48)), files.Metadata("x")
    peak = Peak()

    def ours() -> float:
        source = io.BytesIO(data)
        with Secret(os.urandom(32)) as key:
            return peak.timed(lambda: [len(chunks) for chunks in files.sealed(key, header, metadata, source)])

    def bare() -> float:
        cipher, nonce, starts = AESGCM(bytes(32)), bytes(12), range(0, len(data), CHUNK)
        return timed(lambda: [len(cipher.encrypt(nonce, data[at : at + CHUNK], b"")) for at in starts])

    our_time, bare_time = in_turns(rounds, ours, bare)
    what = f"encrypt {len(data) >> 20} MiB held in memory, in chunks, throughput"
    report(what, our_time, bare_time, at_least(0.7), peak.kib)


def _beside_age(
    work: Path,
    large: Path,
    rounds: int,
    peaks: dict[str, int],
    encrypt: Callable[[], float],
    decrypt: Callable[[], float],
) -> None:
    age = shutil.which("age")
    if age is None:
        report_missing("the same file by age: not installed ('apt install age')")
        return
    made = subprocess.run(["age-keygen"], check=True, capture_output=True, text=True).stdout
    recipient = re.search(r"public key: (\S+)", made)
    assert recipient is not None
    (identity := work / "identity").write_text(made)
    sealed, opened = work / "large.age", work / "opened"

    def run(result: Path, *command: str | Path) -> float:
        """Synced, as ours is: else one of the two would be measured without its disk."""
        result.unlink(missing_ok=True)

        def work() -> None:
            subprocess.run([age, "-o", result, *command], check=True)
            with result.open("rb") as file:
                os.fsync(file.fileno())

        return timed(work)

    def seal() -> float:
        return run(sealed, "-r", recipient[1], large)

    def open_() -> float:
        return run(opened, "-d", "-i", identity, sealed)

    for what, ours, theirs in (("encrypt", encrypt, seal), ("decrypt", decrypt, open_)):
        our_time, age_time = in_turns(rounds, ours, theirs)
        report(f"{what} the same file, throughput (bare: age)", our_time, age_time, None, peaks[f"{what} large"])
