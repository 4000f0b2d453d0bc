"""The Hub on this machine, as far as an upload needs it: repositories, commits and large files, kept in memory."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_of_the_stand_in"
LARGE = (".safetensors", ".parquet", ".png")


class HubStandIn:
    """What was sent: `repositories`, by type and name, each a mapping of paths to bytes."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.endpoint = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and content for a request that has shown the token."""
        if (method, path) == ("POST", "/api/repos/create"):
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            is_there = (asked["type"], name) in self.repositories
            self.repositories.setdefault((asked["type"], name), {})
            return (409 if is_there else 200), {"url": f"{self.endpoint}/{name}"}
        if (method, path) == ("POST", "/api/validate-yaml"):
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/objects/batch"):
            return 200, {"objects": [self._large_file(one) for one in json.loads(body)["objects"]]}
        if (method, path) == ("POST", "/large/verify"):
            told = json.loads(body)
            return (200 if len(self.large.get(told["oid"], b"")) == told["size"] else 404), {}
        if method == "PUT" and path.startswith("/large/"):
            oid = path.removeprefix("/large/")
            self.large[oid] = body
            return (200 if hashlib.sha256(body).hexdigest() == oid else 400), {}
        _, _, kind, organization, name, *rest = path.split("/")
        files = self.repositories.get((kind.removesuffix("s"), f"{organization}/{name}"))
        if files is None:
            return 404, {"error": "Repository not found"}
        if rest == ["preupload", "main"]:
            asked = [one["path"] for one in json.loads(body)["files"]]
            modes = {one: "lfs" if one.endswith(LARGE) else "regular" for one in asked}
            return 200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]}
        if rest == ["commit", "main"]:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = self.large[line["value"]["oid"]]
            address = f"{self.endpoint}/{'datasets/' * (kind == 'datasets')}{organization}/{name}/commit/{'0' * 40}"
            return 200, {"success": True, "commitOid": "0" * 40, "commitUrl": address}
        return 501, {"error": f"The stand-in knows no {method} {path}"}

    def _large_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload, verify = f"{self.endpoint}/large/{asked['oid']}", f"{self.endpoint}/large/verify"
        return {**asked, "actions": {"upload": {"href": upload}, "verify": {"href": verify}}}


@contextmanager
def hub_stand_in() -> Iterator[HubStandIn]:
    """A server for as long as the block takes; it refuses whoever has not its token."""
    hub = HubStandIn()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            path = self.path.partition("?")[0]
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            body = self._chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_known = (
                self.headers.get("Authorization") == f"Bearer {TOKEN}" or self.command == "PUT"
            )  # signed addresses
            status, content = hub.answer(self.command, path, body) if is_known else (401, {"error": "Who is there?"})
            said = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def _chunks(self) -> bytes:
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = do_HEAD = _respond  # noqa: N815 - the names of http.server

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
