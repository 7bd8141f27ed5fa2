import http.client
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

from typing_extensions import override

from tests.interop.children import PATIENCE


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def send(
    to: Path | int, method: str, path: str, body: object = None, token: str = ""
) -> http.client.HTTPConnection:
    connection = (
        http.client.HTTPConnection("127.0.0.1", to, timeout=PATIENCE)
        if isinstance(to, int)
        else UnixConnection(to)
    )
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if method == "POST":
        headers["Content-Type"] = "application/json"
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    return connection


def answer_to(asking: http.client.HTTPConnection) -> tuple[int, Any]:
    with closing(asking):
        answer = asking.getresponse()
        return answer.status, json.loads(answer.read())


def ask(
    to: Path | int, method: str, path: str, body: object = None, token: str = ""
) -> tuple[int, Any]:
    return answer_to(send(to, method, path, body, token))


def text_of(path: Path, of: str) -> str:
    connection = UnixConnection(path)
    connection.request("GET", of)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def get(to: Path | int, path: str) -> Any:
    return _successful(*ask(to, "GET", path))


def post(to: Path | int, path: str, body: object = None) -> Any:
    return _successful(*ask(to, "POST", path, body))


def _successful(status: int, answer: Any) -> Any:
    if status != 200:
        raise AssertionError(f"{status}: {answer}")
    return answer
