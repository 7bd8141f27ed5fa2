"""What answers the commands in their tests: HTTP over a UNIX socket or TCP, with answers that are given."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple

DONE = {"ok": True, "changes": "nothing changed", "errors": []}


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Answering(ThreadingMixIn, TCPServer):
    """Gives one answer to everything.

    Args:
        address: The path of a UNIX socket, or a host and a port.
        document: The answer; bytes are sent as they are.
        status: Its status.

    Attributes:
        headers: Further ones of the answer.
        others: Answers to some paths, maybe each with its status; those of all that are below a path end with ``*``.
        first: What they answer before that.
        asked: The requests so far.
        at: The path.
    """

    daemon_threads = True

    def __init__(
        self, address: Path | tuple[str, int], document: object = DONE, status: int = 200
    ) -> None:
        is_path = isinstance(address, Path)
        self.address_family = socket.AF_UNIX if is_path else socket.AF_INET
        self.document, self.status = document, status
        self.headers: dict[str, str] = {}
        self.others: dict[str, object] = {}
        self.first: dict[str, list[object]] = {}
        self.asked: list[Asked] = []
        self.at = str(address)
        super().__init__(str(address) if is_path else address, _Handler)  # type: ignore[arg-type]
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def address_string(self) -> str:
        return "a client"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append(Asked(self.command, self.path, dict(self.headers), body))
        document = self.server.document
        for path, answer in self.server.others.items():
            if path == self.path or (path.endswith("*") and self.path.startswith(path[:-1])):
                document = answer
        if first := self.server.first.get(self.path):
            document = first.pop(0)
        status = self.server.status
        if isinstance(document, tuple):
            status, document = document
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer
