"""A stand-in over real sockets with a trader on it, and the clients that talk to it."""

import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

import httpx
from solders.keypair import Keypair
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from standin_drift import Standin
from standin_orders import Trader


class Wire:
    """A stand-in over real sockets, a trader with a funded user, and solana's own client."""

    def __init__(self, standin: Standin) -> None:
        self.standin, self.chain, self.desk = standin, standin.chain, standin.desk
        self.trader = Trader(self.chain, self.desk, Keypair())
        self.maker = self.desk.add_maker("maker")
        self.http = httpx.AsyncClient(
            base_url=standin.url, trust_env=False, verify=False, timeout=0.5
        )

    @cached_property
    def rpcs(self) -> list[Any]:
        from solana.rpc.async_api import AsyncClient

        return [AsyncClient(url) for url in self.standin.urls]

    @property
    def rpc(self) -> Any:
        return self.rpcs[0]

    async def send(self, transaction: VersionedTransaction, node: int = 0) -> Signature:
        return (await self.rpcs[node].send_raw_transaction(bytes(transaction), preflight())).value

    async def landed(self, transaction: VersionedTransaction) -> dict[str, Any]:
        """Send, tick once, and the books' entry."""
        signature = str(await self.send(transaction))
        self.desk.tick()
        return self.desk.books()["landed"][signature]

    async def call(self, method: str, *given_: Any) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": given_}
        return (await self.http.post("/", json=body)).json()

    async def raw(self, transaction: VersionedTransaction) -> dict[str, Any]:
        text = b64encode(bytes(transaction)).decode()
        config = {"encoding": "base64", "preflightCommitment": "processed"}
        return await self.call("sendTransaction", text, config)

    async def status(self, signature: Signature, node: int = 0, search: bool = False) -> Any:
        answer = await self.rpcs[node].get_signature_statuses([signature], search)
        return answer.value[0]

    def position(self, market: int = 0) -> dict[str, int]:
        return self.desk.user(self.trader.user)["positions"].get(market, {})


def preflight() -> Any:
    from solana.rpc.commitment import Processed
    from solana.rpc.types import TxOpts

    return TxOpts(preflight_commitment=Processed)


@contextlib.asynccontextmanager
async def opened(nodes: int = 1) -> AsyncIterator[Wire]:
    async with Standin(nodes=nodes).open() as standin:
        wire = Wire(standin)
        try:
            yield wire
        finally:
            for rpc in vars(wire).get("rpcs", []):
                await rpc.close()
            await wire.http.aclose()
