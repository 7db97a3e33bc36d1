"""A pcscd of one's own, with virtual readers, beside whatever smart-card service the machine may run.

pcscd has its socket in /run/pcscd and nowhere else, and vpcd listens on every address. So both live in namespaces of
their own (mount and network): this file, run as a program, makes and holds them, and pcscd and the virtual cards are
started inside. Clients need only ``PCSCLITE_CSOCK_NAME``, which libpcsclite reads when it is first used. No privilege
is needed where user namespaces are allowed, and no reader on USB is seen.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READER_NAME = "Yubico YubiKey CCID"
DRIVERS = Path("/usr/lib/pcsc/drivers")
FIRST_PORT = 0x8C7B
PATIENCE = 60.0  # seconds; on a busy machine a daemon that does come may take many

DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]  # nothing outlives the tests


class Pcscd:
    """``start()``, ``stop()`` and again; ``env`` is what a client needs, here or in another process."""

    def __init__(self, directory: Path) -> None:
        """``directory``: empty, with a short name, since its socket's name may have 107 bytes."""
        self._directory = directory
        self._holder: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        for part in ("run", "readers", "drivers"):
            (directory / part).mkdir(exist_ok=True)

    @property
    def socket_path(self) -> Path:
        return self._directory / "run" / "pcscd.comm"

    @property
    def env(self) -> dict[str, str]:
        return {"PCSCLITE_CSOCK_NAME": str(self.socket_path)}

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is None

    def start(self, readers: int = 1) -> None:
        """With so many readers, empty as yet; returns when clients are answered. Does nothing if it runs."""
        if self.running:
            return
        self._configure()
        log = (self._directory / "log").open("wb")
        command = ["pcscd", "--foreground", "--config", str(self._directory / "readers")]
        self._daemon = subprocess.Popen(
            [*self.inside(mount=True), *DIE_WITH_PARENT, *command],
            env={**os.environ, "VPCD_SLOTS": str(readers)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        _wait_for(self._answers, lambda: f"pcscd does not start: {(self._directory / 'log').read_text()}")

    def stop(self) -> None:
        """As when the service is stopped: its clients lose their connection, the cards their reader."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            self._daemon = None
        self.socket_path.unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        if self._holder is not None:
            assert self._holder.stdin is not None
            assert self._holder.stdout is not None
            self._holder.stdin.close()
            self._holder.stdout.close()
            self._holder.wait(PATIENCE)
            self._holder = None

    def port(self, reader: int) -> int:
        """Where the card for this reader (0, 1 …) connects, inside."""
        return FIRST_PORT + reader

    def inside(self, *, mount: bool = False) -> list[str]:
        """Before a command: runs it where the readers' ports are."""
        holder = self._held()
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(holder.pid), "--net", *user, *(["--mount"] if mount else []), "--"]

    def _held(self) -> subprocess.Popen[bytes]:
        if self._holder is None:
            user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]  # none can be made in a chroot
            self._holder = subprocess.Popen(
                ["unshare", *user, "--mount", "--net", sys.executable, __file__, str(self._directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert self._holder.stdout is not None
            if self._holder.stdout.readline() != b"ready\n":
                raise RuntimeError("no namespaces for pcscd: neither root nor user namespaces are allowed here")
        return self._holder

    def _configure(self) -> None:
        """The driver (Debian: vsmartcard-vpcd), linked after the piece of C that makes its reader like a YubiKey's."""
        reader = self._directory / "readers" / "reader"
        if reader.exists():
            return
        driver = self._directory / "drivers" / "libifdvpcd.so.0"  # its SONAME
        shutil.copy(DRIVERS / "serial" / "libifdvpcd.so", driver)
        library = self._directory / "drivers" / "usb_reader.so"
        flags = ["-shared", "-fPIC", "-I/usr/include/PCSC", "-Wl,--no-as-needed", f"-Wl,-rpath,{driver.parent}"]
        source = ROOT / "tests" / "support" / "virtual_yubikey" / "usb_reader.c"
        subprocess.run(["cc", *flags, "-o", str(library), str(source), str(driver)], check=True)
        reader.write_text(
            f'FRIENDLYNAME "{READER_NAME}"\n'
            f"DEVICENAME /dev/null:{FIRST_PORT:#x}\n"
            f"LIBPATH {library}\n"
            f"CHANNELID {FIRST_PORT:#x}\n"
        )

    def _answers(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise RuntimeError(f"pcscd ended: {(self._directory / 'log').read_text()}")
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.socket_path))
        except OSError:
            return False
        return True


def _wait_for(condition: Callable[[], bool], problem: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(problem())
        time.sleep(0.005)


def hold(directory: Path) -> None:
    """Inside fresh namespaces: make the place for pcscd, and hold it until stdin ends."""
    _end_with_parent()
    for place in (DRIVERS, Path("/run")):  # no driver for real readers, no socket of the machine's own services
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    Path("/run/pcscd").mkdir()
    subprocess.run(["mount", "--bind", str(directory / "run"), "/run/pcscd"], check=True)
    _loopback_up()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


def _loopback_up() -> None:
    """SIOCGIFFLAGS and SIOCSIFFLAGS, netdevice(7); IFF_UP is 1."""
    with socket.socket() as any_socket:
        flags = fcntl.ioctl(any_socket, 0x8913, struct.pack("16sH14x", b"lo", 0))
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", struct.unpack("16sH14x", flags)[1] | 1))


def _end_with_parent() -> None:
    """prctl(2): PR_SET_PDEATHSIG is 1."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() == 1:
        sys.exit(1)


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
