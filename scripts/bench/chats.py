"""Importing a chat: 100,000 messages of a Telegram and of a WhatsApp export against the bare GCM calls, in turns.

Each import runs in a process of its own, which tells its time, from the file to the last result, and the most memory
that it ever had. For comparison: a tenth of the chat.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from scripts.bench.ratio import ROOT, at_least, in_turns, report, report_memory, session_key, timed

IMPORTING = """
import os, re, sys, time
from pathlib import Path
from medcrypt_hsm import Vault, find_in_export
path, program, file = sys.argv[1:]
with Vault.open(path, pin=lambda info: os.environ["BENCH_PIN"]) as vault:
    start = time.perf_counter()
    conversation = find_in_export(file, program)
    count = sum(len(batch) for batch in vault.chats.open(conversation).read())
    seconds = time.perf_counter() - start
assert conversation.summary.ok == count, conversation.summary
print(seconds, re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


def wire_texts(vault: Any, patient: str, count: int) -> Iterator[str]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from medcrypt_hsm.crypto.secret import Secret
    from medcrypt_hsm.messages.wire import v2
    from medcrypt_hsm.messages.wire.pairing import PairingPayload
    from medcrypt_hsm.messages.wire.v2 import WHOLE
    from medcrypt_hsm.vault.ratchet import derive_message_key

    payload = PairingPayload.parse(vault.patients.add(patient, unconfirmed=True).payload)
    with Secret(payload.secret) as chain_key, derive_message_key(chain_key, payload.pairing, payload.month) as key:
        aead = AESGCM(key.value)
    header = v2.header(payload.pairing, payload.month, "p", WHOLE)
    for number in range(count):
        nonce = os.urandom(12)
        sealed = aead.encrypt(nonce, f"{number:<300}".encode(), header)
        yield v2.encode(payload.pairing, payload.month, "p", WHOLE, nonce, sealed)


def write_telegram(path: Path, texts: Iterator[str]) -> None:
    start = datetime.now(UTC).replace(day=1, microsecond=0)
    with path.open("w") as file:
        file.write('{\n "name": "Paciente Ejemplo",\n "type": "personal_chat",\n "id": 4711,\n "messages": [')
        for number, text in enumerate(texts):
            message = {
                "id": number,
                "type": "message",
                "date": start.replace(tzinfo=None).isoformat(),
                "date_unixtime": str(int(start.timestamp())),
                "from": "Paciente Ejemplo",
                "from_id": "user4711",
                "text": text,
                "text_entities": [{"type": "plain", "text": text}],
            }
            file.write(("," if number else "") + "\n" + json.dumps(message, indent=1))
        file.write("\n ]\n}")


def write_whatsapp(path: Path, texts: Iterator[str]) -> None:
    start = datetime.now(UTC).replace(day=1)
    with path.open("w") as file:
        for number, text in enumerate(texts):
            when = start + timedelta(seconds=number % 80_000)
            file.write(f"[{when:%d/%m/%y, %H:%M:%S}] Paciente Ejemplo: {text}\r\n")


def importing(vault: Any, session: Any, directory: Path, rounds: int, count: int) -> None:
    from pkcs11 import GCMParams, Mechanism

    bare_key = session_key(session, ENCRYPT=True, DECRYPT=True)
    parameters = GCMParams(os.urandom(12), b"x" * 60, 128)
    sealed = bare_key.encrypt(b"x" * 300, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)

    def bare() -> float:
        def loop() -> None:
            for _ in range(count):
                bare_key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)

        return timed(loop)

    for program, write in (("telegram", write_telegram), ("whatsapp", write_whatsapp)):
        turn = iter(range(rounds + 1))
        peaks: list[int] = []

        def ours(
            size: int,
            program: str = program,
            write: Callable[[Path, Iterator[str]], None] = write,
            turn: Iterator[int] = turn,
            peaks: list[int] = peaks,
        ) -> float:
            """A chat of new messages, each time from another patient."""
            file = directory / f"chat-{program}"
            write(file, wire_texts(vault, f"EXP-{program}-{next(turn)}", size))
            command = [sys.executable, "-c", IMPORTING, str(directory / "vault.db"), program, str(file)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            seconds, peak = done.stdout.split()
            peaks.append(int(peak))
            file.unlink()
            return float(seconds)

        ours(count // 10)
        our_time, bare_time = in_turns(rounds, lambda: ours(count), bare)
        what = f"import {count:,} messages of {program}, throughput"
        report(what, our_time, bare_time, at_least(0.5), max(peaks[1:]))
        report_memory(f"  the same with {count // 10:,} messages", peaks[0])
