"""The virtual reader's side of the wire: vsmartcard's vpcd, a driver loaded by pcscd (docs/spec/tokens.md).

A frame is a length of two bytes, big-endian, and that many bytes. One byte alone is a control code: 0 power off,
1 power on, 2 reset, 4 asks for the ATR. Everything else is a command APDU to answer.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time

POWER_OFF, POWER_ON, RESET, ATR = 0, 1, 2, 4


class Wire:
    """A connection to the reader; connected is inserted, closed is pulled out."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, patience: float) -> None:
        """``patience``: seconds to wait for a pcscd that is just starting. Raises OSError."""
        self._owing = False  # a command has come and its answer has not gone
        end = time.monotonic() + patience
        while True:
            try:
                self._socket = socket.create_connection((host, port))
                break
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self) -> bytes | None:
        """The next frame; None when the reader is gone, or the card was pulled out of it."""
        try:
            header = self._exactly(2)
            frame = None if header is None else self._exactly(int.from_bytes(header))
        except OSError:
            return None
        self._owing = frame is not None and len(frame) > 1
        return frame

    def send(self, data: bytes) -> None:
        self._owing = False
        with contextlib.suppress(OSError):  # gone, as the next ``receive`` says
            self._socket.sendall(len(data).to_bytes(2) + data)

    def pull(self) -> None:
        """Break off with a reset, and within an answer if one is due.

        vpcd takes a connection that ends where an answer should begin for an empty answer; only this is an error to it.
        """
        with contextlib.suppress(OSError):
            if self._owing:
                self._socket.sendall(b"\0\2")
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.shutdown(socket.SHUT_RD)  # wakes a ``receive`` in another thread
        self._socket.close()

    def _exactly(self, size: int) -> bytes | None:
        received = b""
        while len(received) < size:
            # vpcd sends a frame's length by itself; the frame follows when that is acknowledged, which waits 40 ms.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            more = self._socket.recv(size - len(received))
            if not more:
                return None
            received += more
        return received
