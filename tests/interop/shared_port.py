"""One port with a route for every protocol, in the order of the reference, to see which of them a client is led to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import Child, InteropTestCase, eventually
from tests.interop.mux import Mux
from tests.matchers.searching import order

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.mux import Record

# With such a timeout no client reaches its route only because an earlier one has given up waiting.
_LISTEN = """\
[listen public]
endpoint       = 127.0.0.1:0
detect_timeout = 1h

[route h2]
match   = tls alpn=h2
backend = close
"""

_ROUTE = """
[route {name}]
match   = {name}
backend = close
"""


class SharedPortTestCase(InteropTestCase):
    """Tests that share a service whose routes close the connection, so that nothing but detection is tested.

    Attributes:
        mux: The service.
        port: Its port.
        address: Its address and port.
    """

    mux: ClassVar[Mux]
    port: ClassVar[str]
    address: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        routes = (_ROUTE.format(name=name) for name in order())
        cls.mux = cls.share(Mux(cls.folder, "".join((_LISTEN, *routes))))
        cls.port = str(cls.mux.port)
        cls.address = f"127.0.0.1:{cls.port}"

    def assert_reaches(self, route: str, program: str, *arguments: str | Path) -> Record:
        """Run a client until it has said something, which must lead to this route, and give its line of the log."""
        before = len(self.mux.lines())

        def spoken() -> list[Record]:
            return [line for line in self.mux.lines()[before:] if line["bytes_in"]]

        client = Child(program, *arguments)
        try:
            eventually(lambda: bool(spoken()), f"{program} is led to a route")
        except AssertionError as error:
            raise AssertionError(f"{error}, and it said:\n{client.output}") from error
        finally:
            client.end()
        # Some clients try again and again. Their last connection came before this one, and so does its line.
        with self.mux.connect() as connected:
            last = "{}:{}".format(*connected.getsockname())
        eventually(lambda: last in {line["client"] for line in self.mux.lines()}, "all is logged")
        found = spoken()
        self.assertEqual({(line["route"], line["reason"]) for line in found}, {(route, "denied")})
        return found[0]
