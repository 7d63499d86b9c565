"""The stand-in as a whole: one chain and its nodes, each on a port with its pubsub on the next."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from standin_drift.desk import Desk
from standin_drift.http import Front
from standin_drift.ledger import Chain
from standin_drift.pubsub import Pubsub
from standin_drift.rpc import Node

HOST = "127.0.0.1"


class Standin:
    """``urls`` hold while ``open`` is entered; ``desk`` arranges, ``chain`` is the truth."""

    def __init__(self, chain: Chain | None = None, *, nodes: int = 1, seed: int = 0) -> None:
        self.chain = chain or Chain()
        self.nodes = [Node(self.chain, seed=seed + at) for at in range(nodes)]
        self.desk = Desk(self.chain, self.nodes)
        self.pubsubs: list[Pubsub] = []
        self.urls: list[str] = []

    @property
    def url(self) -> str:
        return self.urls[0]

    @asynccontextmanager
    async def open(self, port: int = 0) -> AsyncIterator["Standin"]:
        """Serve until left; ``port`` 0 takes free ones, else node n listens on port + 2n."""
        async with AsyncExitStack() as stack:
            for at, node in enumerate(self.nodes):
                await self.open_node(stack, node, port + 2 * at if port else 0)
            clock = asyncio.create_task(self.run_clock())
            try:
                yield self
            finally:
                clock.cancel()

    async def open_node(self, stack: AsyncExitStack, node: Node, port: int) -> None:
        web, feed = listeners(port)
        front, pubsub = Front(node, self.desk), Pubsub(node)
        server = await asyncio.start_server(front.serve, sock=web, limit=2**24)
        stack.push_async_callback(front.close)
        stack.callback(server.close)
        await stack.enter_async_context(pubsub.open(feed))
        self.pubsubs.append(pubsub)
        self.urls.append(f"http://{HOST}:{web.getsockname()[1]}")

    async def run_clock(self) -> None:
        """Tick in real time as the desk says; catch up after the loop was held up."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if not self.desk.slots_per_s:
                await asyncio.sleep(0.01)
                due = loop.time()
                continue
            due += 1 / self.desk.slots_per_s
            await asyncio.sleep(max(due - loop.time(), 0))
            self.chain.tick()


def listeners(port: int, tries: int = 100) -> tuple[socket.socket, socket.socket]:
    """Two sockets on neighbouring ports, as driftpy expects RPC and pubsub."""
    for _ in range(tries):
        web = listener(port)
        try:
            return web, listener(web.getsockname()[1] + 1)
        except OSError:
            web.close()
            if port:
                raise
    raise OSError("no two neighbouring ports are free")


def listener(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise OSError(str(error)) from error
    return bound


def described(standin: Standin) -> dict[str, Any]:
    return {"urls": standin.urls, "slot": standin.chain.slot}
