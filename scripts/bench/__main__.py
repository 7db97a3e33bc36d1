"""Speed, as ratios to the bare calls (PKCS#11, or SHA-256 and ECDSA) that the same work needs, in turns in one run.

One table: an aim of ≤ is for a time as a multiple of the bare one, an aim of ≥ for a throughput as a part of it. The
peak memory is that of the process that did our work. Never a test: a machine's load moves these numbers. Each pair is
run several times in turns and the medians compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.bench.chats import importing
from scripts.bench.files import encrypting
from scripts.bench.ratio import (
    MODULE,
    ROOT,
    Peak,
    at_least,
    at_most,
    heads,
    in_turns,
    peak_of,
    peak_of_command,
    report,
    report_memory,
    session_key,
    timed,
)
from scripts.bench.vault import month_after, rekeying, status
from tests.support.vault_builder import SoftToken, VaultBuilder, ctx, sha256, u64

PIN = "123456"
URI = f"pkcs11:token=bench?module-path={MODULE}"

# What a person would write without this program: log in, unwrap one AES key, open one message.
BARE = f"""
import os, pkcs11
from pkcs11 import Attribute as A, GCMParams, KeyType, Mechanism, ObjectClass
token = pkcs11.lib({MODULE!r}).get_token(token_label="bench")
with token.open(user_pin=os.environ["BENCH_PIN"]) as session:
    kek = session.get_key(label="bench kek", object_class=ObjectClass.SECRET_KEY)
    key = kek.unwrap_key(ObjectClass.SECRET_KEY, KeyType.AES, bytes.fromhex(os.environ["BENCH_WRAPPED"]),
                         mechanism=Mechanism.AES_KEY_WRAP,
                         template={{A.TOKEN: False, A.SENSITIVE: True, A.EXTRACTABLE: False, A.DECRYPT: True}})
    sealed = bytes.fromhex(os.environ["BENCH_SEALED"])
    print(key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(bytes(12), b"aad", 128)).decode())
"""

# The same for a token that does ECDH alone: the secret that it agrees on opens a key, which opens the message.
BARE_P256 = f"""
import os, pkcs11
from pkcs11 import Attribute as A, KDF, KeyType, Mechanism, ObjectClass
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
token = pkcs11.lib({MODULE!r}).get_token(token_label="bench")
with token.open(user_pin=os.environ["BENCH_PIN"]) as session:
    private = session.get_key(label="bench ecdh", object_class=ObjectClass.PRIVATE_KEY)
    shared = private.derive_key(
        KeyType.GENERIC_SECRET, 256, mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, bytes.fromhex(os.environ["BENCH_PEER"])),
        template={{A.TOKEN: False, A.SENSITIVE: False, A.EXTRACTABLE: True}},
    )[A.VALUE]
    print(AESGCM(shared).decrypt(bytes(12), bytes.fromhex(os.environ["BENCH_SEALED"]), b"aad").decode())
"""


def bare_aes_kw(session: Any) -> tuple[str, dict[str, str]]:
    """The bare program, and the environment with what it opens."""
    from pkcs11 import Attribute, GCMParams, KeyType, Mechanism

    kek = session.generate_key(
        KeyType.AES, 256, label="bench kek", store=True, template={Attribute.WRAP: True, Attribute.UNWRAP: True}
    )
    key = session_key(session, ENCRYPT=True)
    sealed = key.encrypt(b"x" * 300, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(bytes(12), b"aad", 128))
    wrapped = kek.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP)
    return BARE, {"BENCH_WRAPPED": wrapped.hex(), "BENCH_SEALED": sealed.hex()}


def bare_p256_hpke(session: Any) -> tuple[str, dict[str, str]]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from pkcs11 import Attribute, KeyType, Mechanism
    from pkcs11.util.ec import encode_named_curve_parameters

    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    domain = session.create_domain_parameters(KeyType.EC, curve, local=True)
    public, _ = domain.generate_keypair(
        label="bench ecdh", store=True, mechanism=Mechanism.EC_KEY_PAIR_GEN, private_template={Attribute.DERIVE: True}
    )
    peer = ec.generate_private_key(ec.SECP256R1())
    point = public[Attribute.EC_POINT][2:]
    shared = peer.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
    sealed = AESGCM(shared).encrypt(bytes(12), b"x" * 300, b"aad")
    own = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return BARE_P256, {"BENCH_PEER": own.hex(), "BENCH_SEALED": sealed.hex()}


def whole_process(directory: Path, rounds: int, wire: str, bare_program: str, environment: dict[str, str]) -> None:
    bare_environment = os.environ | {"BENCH_PIN": PIN} | environment
    message = directory / "message.txt"
    message.write_text(wire)
    command = [sys.executable, "-m", "medcrypt_hsm", "--vault", str(directory / "vault.db"), "decrypt", str(message)]
    our_environment = os.environ | {"BENCH_PIN": PIN, "MEDCRYPT_PIN_SOURCE": "env:BENCH_PIN"}

    def run(arguments: list[str], environment: dict[str, str]) -> float:
        quiet = subprocess.DEVNULL
        return timed(lambda: subprocess.run(arguments, env=environment, check=True, stdout=quiet, stderr=quiet))

    # Once unmeasured: compiled modules and the file cache are there for both.
    peak = peak_of_command(command[3:], our_environment)
    bare_command = [sys.executable, "-c", bare_program]
    run(bare_command, bare_environment)
    ours, bare = in_turns(rounds, lambda: run(command, our_environment), lambda: run(bare_command, bare_environment))
    report("decrypt one message, whole process", ours, bare, at_most(2.5), peak)
    with session(command[:5], our_environment) as agent:
        peak = peak_of_command(command[3:], our_environment)
        ours, bare = in_turns(
            rounds, lambda: run(command, our_environment), lambda: run(bare_command, bare_environment)
        )
        report("the same, with a session", ours, bare, at_most(0.5), peak)
        report_memory("  the session's own process", peak_of(agent))


@contextmanager
def session(program: list[str], environment: dict[str, str]) -> Iterator[int]:
    """The id of its process."""

    def run(*arguments: str) -> bytes:
        command = [*program, "--json", "session", *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True).stdout

    agent: int = json.loads(run("start"))["process"]
    try:
        yield agent
    finally:
        run("lock")


def many_messages(vault: Any, session: Any, rounds: int, count: int, over: str = "", reader: Any = None) -> None:
    """``over``: what ``reader``, which decrypts, is reached over; left out, the vault itself decrypts."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from pkcs11 import GCMParams, Mechanism

    from medcrypt_hsm.crypto.secret import Secret
    from medcrypt_hsm.messages.wire import v2
    from medcrypt_hsm.messages.wire.pairing import PairingPayload
    from medcrypt_hsm.messages.wire.v2 import WHOLE
    from medcrypt_hsm.vault.ratchet import derive_message_key

    bare_key = session_key(session, ENCRYPT=True, DECRYPT=True)
    nonce, aad = os.urandom(12), b"x" * 60
    sealed = bare_key.encrypt(b"x" * 300, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad, 128))
    peak = Peak()
    turn = (f"{over.strip(', ')}{number}".replace(" ", "-") for number in range(rounds))

    def paste() -> str:
        """A chat of new messages, each round from another patient."""
        added = vault.patients.add(f"EXP-CHAT-{next(turn)}", unconfirmed=True)
        payload = PairingPayload.parse(added.payload)
        with Secret(payload.secret) as chain_key, derive_message_key(chain_key, payload.pairing, payload.month) as key:
            aead = AESGCM(key.value)
        header = v2.header(payload.pairing, payload.month, "p", WHOLE)
        texts = []
        for number in range(count):
            unique = os.urandom(12)
            text = f"{number:<300}".encode()
            fresh = aead.encrypt(unique, text, header)
            texts.append(v2.encode(payload.pairing, payload.month, "p", WHOLE, unique, fresh))
        return "\n".join(texts)

    def ours() -> float:
        text = paste()
        return peak.timed(lambda: (reader or vault).decrypt(text))

    def bare() -> float:
        def loop() -> None:
            for _ in range(count):
                bare_key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad, 128))

        return timed(loop)

    our_time, bare_time = in_turns(rounds, ours, bare)
    what = f"decrypt {count:,} messages in one call{over}, throughput"
    report(what, our_time, bare_time, at_least(0.5), peak.kib)


def with_session(directory: Path, bare: Any, rounds: int, count: int) -> None:
    """The same, through the agent's socket."""
    from medcrypt_hsm import SessionVault, Vault

    path = directory / "vault.db"
    program = [sys.executable, "-m", "medcrypt_hsm", "--vault", str(path)]
    with (
        session(program, os.environ | {"BENCH_PIN": PIN, "MEDCRYPT_PIN_SOURCE": "env:BENCH_PIN"}),
        Vault.open(path, pin=lambda info: PIN) as vault,
    ):
        reader = SessionVault.find(path)
        assert reader is not None
        with reader:
            many_messages(vault, bare, rounds, count, ", with a session", reader)


def month_opening(vault: Any, session: Any, moment: list[datetime], rounds: int, pairings: int) -> None:
    from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

    for number in range(pairings):
        vault.patients.add(f"EXP-MONTH-{number:05}", unconfirmed=True)
    total = vault.status().pairings
    wrapping, mac = session_key(session, WRAP=True, UNWRAP=True), session_key(session, SIGN=True)
    passing = session_key(session, SIGN=True)
    wrapped = wrapping.wrap_key(passing, mechanism=Mechanism.AES_KEY_WRAP)
    template = {
        Attribute.TOKEN: False, Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False,
        Attribute.SIGN: True,
    }  # fmt: skip
    data, peak = b"x" * 150, Peak()

    def bare() -> float:
        def loop() -> None:
            for _ in range(total):
                mac.sign(data, mechanism=Mechanism.SHA256_HMAC)
                chain = wrapping.unwrap_key(
                    ObjectClass.SECRET_KEY, KeyType.GENERIC_SECRET, wrapped,
                    mechanism=Mechanism.AES_KEY_WRAP, template=template,
                )  # fmt: skip
                chain.sign(data, mechanism=Mechanism.SHA256_HMAC)
                chain.destroy()
                for _ in range(2):
                    key = session_key(session)
                    wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP)
                    key.destroy()
                    mac.sign(data, mechanism=Mechanism.SHA256_HMAC)

        return timed(loop)

    def ours() -> float:
        moment[0] = month_after(moment[0])
        return peak.timed(vault.months.open)

    our_time, bare_time = in_turns(rounds, ours, bare)
    report(f"open a month for {total:,} v2 pairings", our_time, bare_time, at_most(2), peak.kib)


# What an auditor's process does; prints seconds, and the most memory that it ever had (KiB).
VERIFYING = """
import re, sys, time
from pathlib import Path
from medcrypt_hsm import verify_file
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.inspection import verify_file
keys = [public_key_der(Path(sys.argv[2]).read_text())]
start = time.perf_counter()
verify_file(sys.argv[1], keys)
seconds = time.perf_counter() - start
print(seconds, re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


def build_log(path: Path, entries: int) -> tuple[VaultBuilder, SoftToken]:
    """A log of ``entries`` sealed entries under a software key, written from the spec as tests do."""
    log, token = VaultBuilder(), SoftToken("bench")
    log.set_trust("month", "2026-11", {"opened": log.now(), "shredded": ""})
    first = log.introduce(token, token)
    log.write(path).chmod(0o600)
    path.with_suffix(".pem").write_bytes(token.pem())

    def rows() -> Iterator[tuple[int, bytes, bytes, bytes, bytes, bytes]]:
        digest = first.hash
        for number in range(2, entries + 1):
            stored = b"\x01" + (1).to_bytes(4, "big") + os.urandom(12 + 180 + 16)
            digest = sha256(ctx("medcrypt/audit/entry", digest, u64(number), first.trust, token.id, stored))
            head = ctx("medcrypt/head", log.vault, u64(number), digest, first.trust)
            yield number, stored, digest, first.trust, token.id, token.sign(head)

    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows())
    return log, token


def verifying(directory: Path, rounds: int, entries: int) -> None:
    """The whole log from public keys, in a process of its own, against the bare SHA-256 and ECDSA calls."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    sizes = [entries // 10, entries]
    paths = [directory / f"log-{size}.db" for size in sizes]
    log, token = [build_log(path, size) for path, size in zip(paths, sizes, strict=True)][-1]
    with closing(sqlite3.connect(paths[-1])) as db:
        some = db.execute("SELECT * FROM entries ORDER BY sequence LIMIT 10000").fetchall()
    calls = []
    for number, stored, digest, trust, signer, signature in some:
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        hashed = ctx("medcrypt/audit/entry", bytes(32), u64(number), trust, signer, stored)
        head = ctx("medcrypt/head", log.vault, u64(number), digest, trust)
        calls.append((hashed, utils.encode_dss_signature(r, s), head))
    public, algorithm = token.key.public_key(), ec.ECDSA(hashes.SHA256())

    def bare() -> float:
        def loop() -> None:
            for hashed, der, head in calls:
                sha256(hashed)
                public.verify(der, head, algorithm)

        return timed(loop) * entries / len(calls)

    peaks = []

    def ours(path: Path) -> float:
        command = [sys.executable, "-c", VERIFYING, str(path), str(path.with_suffix(".pem"))]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        seconds, peak = done.stdout.split()
        peaks.append(int(peak))
        return float(seconds)

    ours(paths[0])
    our_time, bare_time = in_turns(rounds, lambda: ours(paths[-1]), bare)
    what = f"verify {entries:,} entries (public keys), throughput"
    report(what, our_time, bare_time, at_least(0.5), max(peaks[1:]))
    report_memory(f"  the same with {sizes[0]:,} entries", peaks[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=["aes-kw", "p256-hpke"], default="aes-kw")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--chat", type=int, default=100_000, help="messages of an exported chat")
    parser.add_argument("--pairings", type=int, default=2_000)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=512, help="of the file that is encrypted")
    parser.add_argument("--patients", type=int, default=2_000, help="of the vaults that are re-keyed or looked at")
    parser.add_argument(
        "--only", choices=["chats", "files", "log", "messages", "rekey", "status"], help="measure these rows alone"
    )
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled
    with tempfile.TemporaryDirectory(prefix="medcrypt-bench-") as name:
        directory = Path(name)
        heads()
        if options.only in (None, "log"):
            verifying(directory, min(options.rounds, 3), options.entries)
        if options.only == "log":
            return
        (directory / "tokens").mkdir()
        configuration = directory / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\n")
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", PIN, "--so-pin", "87654321"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        import pkcs11

        from medcrypt_hsm import Vault
        from medcrypt_hsm.lifecycle.enroll import TokenOptions

        token_options = TokenOptions(options.profile)

        def create(path: Path, **more: Any) -> Vault:
            return Vault.create(path, token="bench", uri=URI, pin=lambda info: PIN, options=token_options, **more)

        if options.only in (None, "status"):
            environment = os.environ | {"BENCH_PIN": PIN, "MEDCRYPT_PIN_SOURCE": "env:BENCH_PIN"}
            status(create, directory, environment, options.patients, options.entries)
        if options.only in (None, "rekey"):
            rekeying(create, directory, options.patients)
        if options.only in (None, "files"):
            encrypting(create, directory, min(options.rounds, 5), options.megabytes)
        if options.only in ("files", "status", "rekey"):
            return
        moment = [datetime.now(UTC)]
        with create(directory / "vault.db", clock=lambda: moment[0]) as vault:
            vault.patients.add("EXP-00417", unconfirmed=True)
            (wire,) = vault.encrypt("EXP-00417", "x" * 300)
            # The vault has logged the process in; a second session shares that.
            session = pkcs11.lib(MODULE).get_token(token_label="bench").open(rw=True)
            os.environ["BENCH_PIN"] = PIN
            if options.only in (None, "chats") and options.profile == "aes-kw":
                importing(vault, session, directory, min(options.rounds, 3), options.chat)
            if options.only == "chats":
                return
            bare = bare_aes_kw if options.profile == "aes-kw" else bare_p256_hpke
            whole_process(directory, max(options.rounds, 3) * 2 + 1, wire, *bare(session))
            if options.profile == "p256-hpke":
                return  # after the one ECDH everything is the host's own work: there are no bare calls to compare
            many_messages(vault, session, options.rounds, options.messages)
            with_session(directory, session, options.rounds, options.messages)
            month_opening(vault, session, moment, options.rounds, options.pairings)


if __name__ == "__main__":
    main()
