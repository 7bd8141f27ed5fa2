"""What tests of QUIC have in common: servers for several names, and a service in front of them."""

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from importlib.util import find_spec
from typing import Any, TypeVar
from unittest import SkipTest

from tests.interop.quic.content import content
from tests.interop.quic.h3_client import H3Client
from tests.interop.servers import Certificate, make_certificate
from tests.support.kit import Child, InteropTestCase, Record, Service

_Test = TypeVar("_Test")


class Server:
    """A running HTTP/3 server, with options as `tests.interop.quic.h3_server` has them."""

    def __init__(self, name: str, certificate: Certificate, *options: str) -> None:
        own = (name, str(certificate.chain), str(certificate.key))
        self.child = Child(sys.executable, "-m", "tests.interop.quic.h3_server", *own, *options)
        self.port = int(self.child.wait_for(r"serving on (\d+)")[1])

    def end(self) -> None:
        self.child.end()

    @property
    def closed(self) -> list[int]:
        """How many peers each connection had that was closed."""
        return [*map(int, re.findall(r"(?m)^closed, and had (\d+) peers$", self.child.output))]


def on_asyncio(test: Callable[[_Test], Coroutine[Any, Any, None]]) -> Callable[[_Test], None]:
    @wraps(test)
    def run(self: _Test) -> None:
        asyncio.run(test(self))

    return run


def require_curl() -> None:
    """Skip a test without curl's library with HTTP/3, which Debian's package has without."""
    if find_spec("curl_cffi") is None:
        raise SkipTest("curl_cffi is not installed")


# Some hellos take two datagrams. On a busy machine the second one may come later than 300 ms after the first.
_LISTEN = "[listen u]\nendpoint = udp:127.0.0.1:0\ndetect_timeout = 20s\n"


class QuicServers:
    """Servers for several names, with the options of each, which tests of a class share."""

    def __init__(self, **wanted: tuple[str, ...]) -> None:
        self.names = wanted
        self._started: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        return self._started[name]

    def start_for(self, its: type[InteropTestCase]) -> None:
        its.certificate = make_certificate(its.folder, "example.com", "*.example.com")
        for name, options in self.names.items():
            self._started[name] = its.share(Server(name, its.certificate, *options))

    def rules(self, **more: str) -> str:
        """Lead each name to its server, if the client is as its route wants more."""
        rules = _LISTEN
        for name, server in self._started.items():
            rules += f"[route {name}]\nmatch = quic sni={name}.example.com {more.get(name, '')}\n"
            rules += f"backend = udp:127.0.0.1:{server.port}\n"
        return rules


def run_mux(test: InteropTestCase, rules: str) -> Service:
    """Start a service; `logged` stops it."""
    return test.own(Service(test.folder, rules, "drain_timeout = 0s"))


def logged(mux: Service) -> list[Record]:
    """Stop a service, so that all its flows end, and give the lines of its access log, by when they began."""
    mux.stop()
    return sorted(mux.lines(), key=lambda line: int(line["id"].rpartition("-")[2], 36))


async def assert_served(
    test: InteropTestCase, one: H3Client, name: str, count: int = 20_000
) -> None:
    answer = await one.get(f"/{count}")
    test.assertEqual((answer.server, answer.body), (name, content(name, count)))
