"""A venue for tests: it keeps its own book of orders and fills, and outlives every daemon.

One JSON object a line over TCP. ``submit`` is idempotent by run and order, ``status`` tells what is
known of orders, ``follow`` streams the fills of a run from a place in their log. An order fills at
its own price in two parts, so that a daemon can die between them.
"""

import itertools
import json
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FEE_RATE = 0.0005

Line = dict[str, Any]


class StandinVenue(socketserver.ThreadingTCPServer):
    """``orders`` and ``fills`` are its book; ``submissions`` counts every one, by order."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.moved = threading.Condition()
        self.orders: dict[int, Line] = {}
        self.fills: list[Line] = []
        self.submissions: Counter[int] = Counter()
        self.closed = False

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @contextmanager
    def open(self) -> Iterator["StandinVenue"]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            with self.moved:
                self.closed = True
                self.moved.notify_all()
            self.shutdown()
            thread.join()
            self.server_close()

    def submit(self, asked: Line) -> Line:
        with self.moved:
            order = asked["order"]
            self.submissions[order] += 1
            if order not in self.orders:
                self.orders[order] = asked
                self.fills += _fills(asked)
                self.moved.notify_all()
        return {"accepted": order}

    def status(self, asked: Line) -> Line:
        with self.moved:
            known = [order for order in asked["orders"] if order in self.orders]
            fills = [fill for fill in self.fills if fill["order"] in known]
            quantities = {str(order): self.orders[order]["quantity"] for order in known}
            return {"upto": len(self.fills), "quantities": quantities, "fills": fills}

    def follow(self, asked: Line) -> Iterator[Line]:
        for at in itertools.count(asked["after"]):
            with self.moved:
                while not self.closed and len(self.fills) <= at:
                    self.moved.wait()
                if self.closed:
                    return
                fill = self.fills[at]
            yield fill


def _fills(order: Line) -> list[Line]:
    """Two fills of about a half, or one where that is less than a lot."""
    half = round(order["quantity"] / 2 / order["lot"]) * order["lot"]
    parts = [half, order["quantity"] - half] if half else [order["quantity"]]
    return [
        {
            "order": order["order"],
            "instrument": order["instrument"],
            "quantity": part,
            "price": order["price"],
            "fee": abs(part) * order["price"] * FEE_RATE,
            "final": place == len(parts) - 1,
            "ts": order["ts"],
        }
        for place, part in enumerate(parts)
    ]


class _Talk(socketserver.StreamRequestHandler):
    server: StandinVenue

    def handle(self) -> None:
        try:
            for line in self.rfile:
                asked = json.loads(line)
                match asked.pop("op"):
                    case "submit":
                        self._say(self.server.submit(asked))
                    case "status":
                        self._say(self.server.status(asked))
                    case "follow":
                        for fill in self.server.follow(asked):
                            self._say(fill)
                        return
        except ConnectionError:
            pass  # it was killed, as it should be

    def _say(self, line: Line) -> None:
        self.wfile.write(json.dumps(line).encode() + b"\n")
