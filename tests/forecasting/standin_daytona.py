"""A stand-in for Daytona: its control plane and the toolbox of a sandbox, over real sockets.

Code that is sent here is run behind a wall of our own (bubblewrap or Landlock), never bare. What
the real service runs in a shell is recognised by its shape, and its effect on the files is made.
"""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import MultipartWriter, web

from forecasting.sandbox import End, Limits, Ran, Sandbox

API_KEY = "dtn-stand-in"


@dataclass(eq=False)
class StandinDaytona:
    """``url`` holds while ``open`` is entered. ``fault`` is met by every run until it is changed.

    ``deletes_refused`` are answered 503, one after the other. ``sandboxes`` are those that live.
    """

    inside: Sandbox
    fault: str = ""
    deletes_refused: int = 0
    starts_after: int = 0
    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    sandboxes: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    timeouts_s: list[int] = field(default_factory=list)
    deleted: int = 0
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["StandinDaytona"]:
        """Serve a port of the loopback until left."""
        app = web.Application(middlewares=[self._admit])
        app.add_routes(
            [
                web.post("/api/sandbox", self._create),
                web.get("/api/sandbox", self._list),
                web.get("/api/sandbox/{id}", self._get),
                web.delete("/api/sandbox/{id}", self._delete),
                web.post("/toolbox/{id}/files/bulk-upload", self._upload),
                web.post("/toolbox/{id}/files/bulk-download", self._download),
                web.post("/toolbox/{id}/process/execute", self._execute),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return _refusal(401, "no such key")
        response: web.StreamResponse = await handler(request)
        return response

    async def _create(self, request: web.Request) -> web.StreamResponse:
        wanted = await request.json()
        self.created.append(wanted)
        if wrong := _broken(request, self.fault.removeprefix("create ")):
            return wrong
        if self.fault == "create 503":
            return _refusal(503, "no runner")
        if self.fault == "create 403":
            return _refusal(403, "Total memory quota exceeded. Maximum allowed: 10GiB")
        number = f"box-{len(self.created)}"
        self.files[number] = {}
        self.sandboxes[number] = {
            "id": number,
            "organizationId": "org",
            "name": number,
            "user": "daytona",
            "env": {},
            "labels": wanted["labels"],
            "public": False,
            "networkBlockAll": wanted["networkBlockAll"] and self.fault != "open network",
            "kvm": False,
            "target": "us",
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "state": "creating" if self.starts_after else "started",
            "toolboxProxyUrl": f"{self.url}/toolbox",
            "polls": self.starts_after,
        }
        if self.fault == "create hangs":
            self.hanging.set()
            await asyncio.sleep(60)
        return web.json_response(self.sandboxes[number])

    async def _list(self, request: web.Request) -> web.Response:
        labels = json.loads(request.query.get("labels", "{}")).items()
        found = [box for box in self.sandboxes.values() if labels <= box["labels"].items()]
        return web.json_response({"items": found, "nextCursor": None})

    async def _get(self, request: web.Request) -> web.Response:
        box = self.sandboxes.get(request.match_info["id"])
        if box is None:
            return _refusal(404, "Sandbox not found")
        box["polls"] -= 1
        if box["polls"] <= 0:
            box["state"] = "started"
        return web.json_response(box)

    async def _delete(self, request: web.Request) -> web.Response:
        if self.deletes_refused:
            self.deletes_refused -= 1
            return _refusal(503, "try later")
        box = self.sandboxes.pop(request.match_info["id"], None)
        if box is None:
            return _refusal(404, "Sandbox not found")
        self.deleted += 1
        return web.json_response(box | {"state": "destroyed"})

    async def _upload(self, request: web.Request) -> web.Response:
        if self.fault == "upload 500":
            return _refusal(500, "disk full")
        form = await request.post()
        for name, given in form.items():
            if isinstance(given, web.FileField):
                path = form[name.replace(".file", ".path")]
                assert isinstance(path, str)
                self.files[request.match_info["id"]][path] = given.file.read()
                given.file.close()
        return web.json_response({})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        (path,) = (await request.json())["paths"]
        held = self.files[request.match_info["id"]].get(path)
        with MultipartWriter("form-data") as writer:
            if held is None or self.fault == "download 404":
                part = writer.append(b"file not found")
                part.set_content_disposition("form-data", name="error", filename=path)
            else:
                part = writer.append(b"x" * 2**22 if self.fault == "download endless" else held)
                part.set_content_disposition("form-data", name="file", filename=path)
        response = web.StreamResponse(headers={"Content-Type": writer.content_type})
        await response.prepare(request)
        if self.fault == "download cut":
            await response.write(b"--half")
            assert request.transport is not None
            request.transport.abort()
            return response
        await writer.write(_Body(response))  # type: ignore[arg-type]
        await response.write_eof()
        return response

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.timeouts_s.append(body["timeout"])
        if wrong := _broken(request, self.fault.removeprefix("exec ")):
            return wrong
        if self.fault == "exec drip":
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            with suppress(ConnectionError):
                while True:
                    await response.write(b" ")
                    await asyncio.sleep(0.05)
            return response
        if self.fault == "exec 500":
            return _refusal(500, "the daemon is gone")
        if self.fault == "exec strange":
            return web.json_response({"exitCode": 127, "result": "sh: python3: not found"})
        files = self.files[request.match_info["id"]]
        code, printed = await self._run(body["command"], files, body["timeout"])
        if code is None or self.fault == "exec 408":
            return _refusal(408, "command execution timeout")
        told = f"{code}\n{len(printed)}\n{printed[-2_000:]}"
        return web.json_response({"exitCode": 0, "result": told})

    async def _run(
        self, command: str, files: dict[str, bytes], timeout_s: int
    ) -> tuple[int | None, str]:
        """What the command would do to the files; None as the exit code for one that lasts."""
        words = shlex.split(command.partition(";")[0])
        places = {sign: words[words.index(sign) + 1] for sign in ("<", ">", "2>")}
        job = json.loads(files[places["<"]])
        assert words[0] == "python3"
        assert words[3] in files, "the program around the code was not sent"
        limits = Limits(
            seconds=min(job["seconds"], timeout_s),
            memory_bytes=job["memory_bytes"],
            printed_bytes=job["printed_bytes"],
            result_bytes=job["result_bytes"],
        )
        ran = await self.inside.run(job["code"], job["context"].encode(), limits)
        files[places[">"]] = _frames(job["nonce"], ran)
        printed = ran.printed
        if ran.end is End.OUTPUT_TOO_LARGE and printed:
            printed = "x" * job["printed_bytes"]
        codes = {End.TIMEOUT: None, End.CRASHED: 139, End.OK: 0, End.NO_RESULT: 0}
        return codes.get(ran.end, 1), printed


def _frames(nonce: str, ran: Ran) -> bytes:
    """What the program around the code would have written."""
    ends: Iterator[str] = iter(())
    match ran.end:
        case End.OK:
            ends = iter([f"{nonce} returned {ran.result}\n"])
        case End.RAISED:
            ends = iter([f"{nonce} raised {json.dumps(ran.reason)}\n"])
        case End.MEMORY:
            ends = iter([f"{nonce} memory null\n"])
        case End.OUTPUT_TOO_LARGE:
            ends = iter([f"{nonce} too_large null\n"])
        case End.FORGED:
            ends = iter(['{"side":"long"}\n'])
        case _:
            pass
    return (f"{nonce} ready null\n" + "".join(ends)).encode()


def _broken(request: web.Request, fault: str) -> web.StreamResponse | None:
    """A response that no client can use, where this is a fault of that kind."""
    match fault:
        case "429":
            refusal = _refusal(429, "Rate limit exceeded")
            refusal.headers["Retry-After"] = "900"
            return refusal
        case "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        case "html":
            return web.Response(text="<html>", content_type="text/html")
        case "not JSON":
            return web.Response(text='{"id":', content_type="application/json")
        case "other JSON":
            return web.json_response({"weather": "fine"})
        case _:
            return None


def _refusal(status: int, message: str) -> web.Response:
    body = {"statusCode": status, "message": message, "error": message}
    return web.json_response(body, status=status)


class _Body:
    """A response as the writer of parts wants it."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response

    async def write(self, chunk: bytes) -> None:
        await self._response.write(bytes(chunk))
