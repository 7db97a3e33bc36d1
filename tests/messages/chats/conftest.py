"""How a file is cut into pieces."""

from __future__ import annotations

import pytest

from medcrypt_hsm.messages.chats import pieces


@pytest.fixture(params=[1, 7, pieces.PIECE])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A file is read in pieces, and no quirk minds where one ends."""
    monkeypatch.setattr(pieces, "PIECE", request.param)
    return int(request.param)
