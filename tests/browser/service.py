"""A service with an endpoint for browsers, and real clients of it."""

import socket
from pathlib import Path

from tests.interop.servers import RedisServer
from tests.support.kit import PATIENCE, Child, Service, ThreadServer, free_port


class Holding(ThreadServer):
    """A server that keeps each connection until its client leaves, and sends this for whatever comes."""

    def __init__(self, answer: bytes = b"") -> None:
        self._answer = answer
        super().__init__(self._hold)

    def _hold(self, client: socket.socket) -> None:
        while client.recv(65536):
            client.sendall(self._answer)


class Watched:
    """A service that browsers can watch at `address`; `settings` are lines of ``[txmux]``."""

    def __init__(self, folder: Path, rules: str, settings: str = "workers = 2") -> None:
        token = folder / f"token-{free_port()}"
        own = f"admin = 127.0.0.1:0\nadmin_token = {token}\ndrain_timeout = 0s\n{settings}"
        self.mux = Service(folder, rules, own)
        child = self.mux.child
        child.wait_for("serving with ")
        self._ends: list[socket.socket | Child] = []
        port = child.wait_for(r"listening on \S+:(\d+) for \[txmux\] admin")[1]
        self.address = f"http://127.0.0.1:{port}/"
        self.token = token.read_text().strip()

    def say(self, listener: str, data: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.mux.ports[listener]), PATIENCE)
        client.sendall(data)
        self._ends.append(client)
        return client

    def use(self, *command: str | Path) -> Child:
        client = Child(*command, stdin=True)  # type: ignore[arg-type]
        self._ends.append(client)
        return client

    def leave(self) -> None:
        while self._ends:
            one = self._ends.pop()
            one.end() if isinstance(one, Child) else one.close()

    def end(self) -> None:
        self.leave()
        self.mux.stop()


def three_routes(redis: RedisServer, web: int, gone: int) -> str:
    """Give rules with two listeners, three routes, and a backend with a server that is not there: nobody listens at the port `gone`."""
    return f"""
[listen public]
endpoint = 127.0.0.1:0
default = close
[listen office]
endpoint = 127.0.0.1:0
[route redis]
under = *
match = redis
backend = redis
[route web]
under = *
match = http
backend = web
[route ssh]
match = ssh
under = public
backend = ssh
[backend redis]
server = 127.0.0.1:{redis.port}
check = tcp interval=200ms
[backend web]
server =
    127.0.0.1:{web}
    127.0.0.1:{gone}
check = tcp interval=200ms
[backend ssh]
server = 127.0.0.1:{gone}
check = tcp interval=200ms
"""


def many_routes(count: int, *servers: int) -> str:
    """Give rules with this many routes, by the names of web sites, to a sixth as many backends; of several servers, each is checked."""
    listed = "".join(f"    127.0.0.1:{port}\n" for port in servers)
    check = "check = tcp interval=200ms\n" if len(servers) > 1 else ""
    routes = "".join(
        f"[route site-{n}]\nmatch = http host=site-{n}.example\nbackend = pool-{n % (count // 6)}\n"
        for n in range(count)
    )
    backends = "".join(f"[backend pool-{n}]\nserver =\n{listed}{check}" for n in range(count // 6))
    return f"[listen public]\nendpoint = 127.0.0.1:0\n{routes}{backends}"
