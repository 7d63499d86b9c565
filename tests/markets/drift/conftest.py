"""The async tests of this folder run on asyncio, which driftpy and websockets need."""

import warnings
from collections.abc import AsyncIterator

import pytest
from standin_wire import Wire, opened


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def driftpy() -> None:
    """Imported once, without the warnings of what it imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import driftpy.drift_client  # noqa: F401


@pytest.fixture
async def wire(driftpy: None) -> AsyncIterator[Wire]:
    """A stand-in with a funded trader and a maker; its clock moves by ``desk.tick`` alone."""
    async with opened() as wire:
        yield wire
