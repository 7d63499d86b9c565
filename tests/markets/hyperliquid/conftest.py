"""The async tests of this folder run on asyncio, which websockets needs."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
