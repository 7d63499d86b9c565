"""The websocket half of a node: subscriptions, and notices as often and as wrong as asked.

A subscription remembers what it told last, and after every tick tells what its node has learned
since: commitment and lag need nothing more.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from standin_drift.ledger import BEHIND
from standin_drift.rpc import Node, passes, shown

KINDS = ("account", "program", "slot", "logs", "signature")


@dataclass
class Subscription:
    number: int
    kind: str
    params: list[Any]
    told: dict[str, Any] = field(default_factory=dict)
    """The version of each account told last, and under "" the slot for all else."""

    @property
    def config(self) -> dict[str, Any]:
        last = self.params[-1] if self.params else None
        return last if isinstance(last, dict) and self.kind != "slot" else {}

    @property
    def commitment(self) -> str:
        return self.config.get("commitment") or "finalized"


@dataclass(eq=False)
class Line:
    """One connection: what it wants, what waits to be written, and a notice held back."""

    connection: ServerConnection
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    out: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    held: str | None = None
    late: list[tuple[int, str]] = field(default_factory=list)
    """Notices by the slot they are put off to."""


class Pubsub:
    def __init__(self, node: Node) -> None:
        self.node, self.chain = node, node.chain
        self.lines: list[Line] = []
        self.connections = 0
        self.numbers = count(1)
        self.news: dict[str, Callable[[Subscription, int], Iterator[tuple[int, Any]]]] = {
            "account": self.account_news,
            "program": self.program_news,
            "slot": self.slot_news,
            "logs": self.logs_news,
            "signature": self.signature_news,
        }

    @asynccontextmanager
    async def open(self, bound: socket.socket) -> AsyncIterator[None]:
        server = serve(self.talk, sock=bound, ping_interval=None, close_timeout=0.05)
        async with server:
            self.chain.listeners.append(self.tell_all)
            try:
                yield
            finally:
                self.chain.listeners.remove(self.tell_all)
                for line in list(self.lines):
                    line.connection.transport.abort()

    async def talk(self, connection: ServerConnection) -> None:
        line = Line(connection)
        self.lines.append(line)
        self.connections += 1
        writer = asyncio.create_task(self.write(line))
        try:
            async for text in connection:
                line.out.put_nowait(json.dumps(self.hear(line, json.loads(text))))
        except ConnectionClosed:
            pass
        finally:
            self.lines.remove(line)
            writer.cancel()

    async def write(self, line: Line) -> None:
        with suppress(ConnectionClosed):
            while (text := await line.out.get()) is not None:
                await line.connection.send(text)
            await line.connection.close(1000)

    def hear(self, line: Line, asked: Any) -> Any:
        if isinstance(asked, list):
            return [self.hear(line, one) for one in asked]
        head = {"jsonrpc": "2.0", "id": asked.get("id")}
        method, params = asked["method"], asked.get("params") or []
        kind = method.removesuffix("Unsubscribe").removesuffix("Subscribe")
        if kind not in KINDS:
            return head | {"error": {"code": -32601, "message": "Method not found"}}
        if method.endswith("Unsubscribe"):
            return head | {"result": line.subscriptions.pop(params[0], None) is not None}
        subscription = Subscription(next(self.numbers), kind, params)
        line.subscriptions[subscription.number] = subscription
        self.catch_up(subscription)
        return head | {"result": subscription.number}

    def catch_up(self, subscription: Subscription) -> None:
        """What is known already is not news, except a signature's fate."""
        if subscription.kind != "signature":
            for _ in self.news[subscription.kind](subscription, self.slot_of(subscription)):
                pass

    def slot_of(self, subscription: Subscription) -> int:
        return self.node.head - BEHIND[subscription.commitment]

    # -- what there is to tell

    def tell_all(self) -> None:
        for line in list(self.lines):
            self.tell_late(line)
            for subscription in list(line.subscriptions.values()):
                slot = self.slot_of(subscription)
                for at, value in self.news[subscription.kind](subscription, slot):
                    self.notify(line, notice(subscription, at, value))
                    if subscription.kind == "signature":
                        line.subscriptions.pop(subscription.number, None)  # closed, perhaps

    def changed(self, subscription: Subscription, key: str, slot: int) -> Any:
        """The account if it changed since it was told, or None."""
        version = self.chain.version(key, slot)
        if version is None or subscription.told.get(key) == version:
            return None
        subscription.told[key] = version
        return version[1]

    def account_news(self, subscription: Subscription, slot: int) -> Iterator[tuple[int, Any]]:
        account = self.changed(subscription, subscription.params[0], slot)
        if account is not None:
            yield slot, shown(account, subscription.config)

    def program_news(self, subscription: Subscription, slot: int) -> Iterator[tuple[int, Any]]:
        config = subscription.config
        for key in list(self.chain.versions):
            account = self.changed(subscription, key, slot)
            if account is None or account.owner != subscription.params[0]:
                continue
            if passes(account, config.get("filters")):
                yield slot, {"pubkey": key, "account": shown(account, config)}

    def slot_news(self, subscription: Subscription, _slot: int) -> Iterator[tuple[int, Any]]:
        head = self.node.head
        if subscription.told.get("") != head:
            subscription.told[""] = head
            yield head, {"parent": head - 1, "root": head - BEHIND["finalized"], "slot": head}

    def logs_news(self, subscription: Subscription, slot: int) -> Iterator[tuple[int, Any]]:
        wanted, told = subscription.params[0], subscription.told.get("", slot)
        subscription.told[""] = slot
        mentions = wanted.get("mentions") if isinstance(wanted, dict) else None
        for signature, landed in list(self.chain.landed.items()):
            due = max(landed.slot, landed.hidden_until)
            if not told < due <= slot:
                continue
            if mentions and mentions[0] not in landed.outcome.keys:
                continue
            value = {"signature": signature, "err": landed.err, "logs": landed.outcome.logs}
            yield landed.slot, value

    def signature_news(self, subscription: Subscription, slot: int) -> Iterator[tuple[int, Any]]:
        landed = self.node.find(subscription.params[0])
        if landed is not None and landed.slot <= slot:
            yield slot, {"err": landed.err}
        elif self.node.strike("false_notice"):
            yield slot, {"err": None}

    # -- and how it goes wrong

    def tell_late(self, line: Line) -> None:
        due = [text for slot, text in line.late if slot <= self.chain.slot]
        line.late = [one for one in line.late if one[0] > self.chain.slot]
        for text in due:
            line.out.put_nowait(text)

    def notify(self, line: Line, text: str) -> None:
        strike = self.node.strike
        if strike("lose_notice"):
            return
        if strike("delay_notice"):
            line.late.append((self.chain.slot + self.node.faults.delay_notice_slots, text))
            return
        if strike("close_abrupt"):
            line.connection.transport.abort()
            return
        if strike("close_clean"):
            line.subscriptions.clear()
            line.out.put_nowait(None)
            return
        if line.held is None and strike("reorder_notice"):
            line.held = text
            return
        texts = [text, text] if strike("duplicate_notice") else [text]
        if line.held is not None:
            texts.append(line.held)
            line.held = None
        for one in texts:
            line.out.put_nowait(one)


def notice(subscription: Subscription, slot: int, value: Any) -> str:
    if subscription.kind != "slot":
        value = {"context": {"slot": slot}, "value": value}
    return json.dumps(
        {
            "jsonrpc": "2.0",
            "method": f"{subscription.kind}Notification",
            "params": {"result": value, "subscription": subscription.number},
        }
    )
