"""A request to a running service, over HTTP."""

import errno
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

from txmux.cli.remote.errors import LateAnswerError, NoServiceError, ServiceRefusedError
from txmux.cli.remote.find import AdminEndpoint, is_for_group, owner_and_mode
from txmux.errors import printable
from txmux.wire.jsontext import parse_json

_LONGEST = 1 << 26  # the most bytes of an answer, since another program may send it


def warn(missing: str) -> None:
    print(f"warning: the answer is not complete: {printable(missing)}", file=sys.stderr)


def ask(
    endpoint: AdminEndpoint,
    method: str,
    path: str,
    body: object = None,
    *,
    seconds: float = 10.0,
    warn: Callable[[str], object] = warn,
) -> Any:
    """Send a request to a service; `seconds` limits the connection, and then the answer.

    `warn` is called with a warning if the answer lacks the part of a process.

    Raises:
        NoServiceError: There is no service, or it does not answer.
        ServiceRefusedError: It refuses.
    """
    with _answered(endpoint, method, path, body, seconds) as response:
        text = response.read(_LONGEST)
    if missing := response.headers.get("Txmux-Missing"):
        warn(missing)
    document = _read_answer(endpoint, response.status, text)
    if not _fits(document, method, path):
        raise _not_txmux(endpoint, response.status)
    return document


def follow(
    endpoint: AdminEndpoint, path: str, *, seconds: float
) -> Iterator[dict[str, Any] | None]:
    """Yield the events of a stream as they come, and ``None`` every few seconds; it ends with the stream.

    Raises:
        NoServiceError: There is no service, or nothing has come from it for `seconds`.
        ServiceRefusedError: It refuses.
    """
    with _answered(endpoint, "GET", path, None, seconds) as response:
        if response.status != HTTPStatus.OK:
            _read_answer(endpoint, response.status, response.read(_LONGEST))
        # The service has ended, or another process serves.
        with suppress(IncompleteRead, ConnectionResetError):
            for line in iter(lambda: response.readline(_LONGEST), b""):
                if line.startswith(b"data: "):
                    yield parse_json(line.removeprefix(b"data: "))
                elif line.startswith(b":"):
                    yield None


@contextmanager
def _answered(
    endpoint: AdminEndpoint, method: str, path: str, body: object, seconds: float
) -> Iterator[HTTPResponse]:
    """Send a request, and raise what goes wrong until the answer has been read as an error of its own."""
    address = endpoint.address
    connection: HTTPConnection
    if isinstance(address, Path):
        connection = _UnixConnection(address, seconds)
    else:
        connection = HTTPConnection(address.host, address.port, timeout=seconds)
    headers = {"Accept": "application/json"}
    data = None
    if method != "GET":
        headers["Content-Type"] = "application/json"
        data = json.dumps({} if body is None else body)
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    try:
        connection.request(method, path, data, headers)
        yield connection.getresponse()
    except TimeoutError:
        message = f"the service at {_where(endpoint)} has not answered within {seconds:g} s"
        raise LateAnswerError(message) from None
    except (OSError, HTTPException, ValueError) as problem:
        raise NoServiceError(_connection_problem(endpoint, problem)) from None
    finally:
        connection.close()


class _UnixConnection(HTTPConnection):
    """HTTP over a UNIX socket; all requests are to ``localhost``, as far as HTTP is concerned."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _where(endpoint: AdminEndpoint) -> str:
    return f"{endpoint.address} ({endpoint.named_by})"


def _connection_problem(
    endpoint: AdminEndpoint, problem: OSError | HTTPException | ValueError
) -> str:
    where = _where(endpoint)
    if isinstance(problem, UnicodeError):  # nothing was sent
        return f"{where} is not the name of a host; name another endpoint"
    if isinstance(problem, (ConnectionResetError, HTTPException, ValueError)):
        return (
            f"the service at {where} has ended before it answered; 'txmux status' shows whether another one serves"
            if isinstance(problem, ConnectionResetError)
            else f"what answers at {where} is not txmux; name another endpoint"
        )
    if isinstance(problem, PermissionError):
        owner, advice = "", "try as that user"
        if isinstance(endpoint.address, Path):
            owner = f", {owner_and_mode(endpoint.address)}"
            if is_for_group(endpoint.address):
                advice += ", or in that group"
        return f"no permission to open {where}{owner}; {advice}"
    if problem.errno == errno.ENOENT:
        return f"there is no socket {where}; start the service, or name another endpoint"
    if problem.errno == errno.ECONNREFUSED:
        left = ""
        if isinstance(endpoint.address, Path):
            is_socket = endpoint.address.is_socket()
            left = "; the file is left over from one that has ended" if is_socket else ", no socket"
        return f"no service listens at {where}{left}; start it, or name another endpoint"
    return f"the service at {where} cannot be reached: {problem.strerror or problem}"


def _not_txmux(endpoint: AdminEndpoint, status: int) -> NoServiceError:
    return NoServiceError(
        f"what answers at {_where(endpoint)} is not txmux (HTTP status {status}); name another endpoint"
    )


def _fits(document: object, method: str, path: str) -> bool:
    """Return whether an answer has the form that those of the service have, of any version: another program may answer all requests."""
    if method == "POST":
        key = "ok"
    elif path == "/api/status":
        key = "pid"
    elif path.startswith("/api/connections/"):
        key = "id"
    else:
        return isinstance(document, list)
    return isinstance(document, dict) and key in document


def _read_answer(endpoint: AdminEndpoint, status: int, text: bytes) -> Any:
    try:
        document = parse_json(text)
    except ValueError:
        raise _not_txmux(endpoint, status) from None
    answer = document if isinstance(document, dict) else {}
    if 200 <= status < 300 and answer.get("ok", True):
        return document
    listed = answer.get("errors")
    errors = [str(line) for line in listed if line] if isinstance(listed, list) else []
    errors = errors or [str(answer.get("error", f"HTTP status {status}"))]
    if status == 401:
        # What the service says is for programs that send headers.
        service = f"the service at {_where(endpoint)}"
        problem = (
            f"this is not the token of {service}" if endpoint.token else f"{service} needs a token"
        )
        advice = "pass --token-file FILE, a file with a token of 'admin_token' or 'admin_tokens' of its rules"
        errors = [f"{problem}; {advice}"]
    raise ServiceRefusedError(errors, status, document)
