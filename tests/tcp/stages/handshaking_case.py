"""A test case that ends TLS."""

from pathlib import Path
from typing import Any

import attrs

from tests.support.certificates import authority
from tests.support.folders import make_folder
from tests.support.mux import CLOSE, MuxTestCase, backend_at
from tests.support.peers import Peer
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.rules.embedding import route
from txmux.rules.model import Route, TlsSettings

SSH = b"SSH-2.0-test\r\n"


class TerminationCase(MuxTestCase):
    """Ends TLS with certificates of one authority.

    Attributes:
        folder: For files; removed with the test.
        ca: The file of the authority.
    """

    def setUp(self) -> None:
        super().setUp()
        self.folder = make_folder(self)
        self.ca = authority().write(self.folder / "ca.pem")

    def pem(self, *names: str, file: str = "") -> Path:
        identity = authority().issue(*names)
        return identity.write(self.folder / (file or f"{names[0]}.pem"), key=True)

    def tls_route(
        self, name: str = "tls", match: str = "tls", under: str = "", **end: Any
    ) -> Route:
        files = end.pop("files", None) or (self.pem("a.example"),)
        outcome = end.pop("outcome", None)
        made = route(match, outcome or CLOSE, name=name)
        return attrs.evolve(
            made,
            outcome=outcome,
            terminate_tls=TlsSettings(files, **end),
            under=(under,) if under else (),
        )

    def inner(self, match: str = "ssh", under: str = "tls", name: str = "") -> Route:
        made = route(match, backend_at(self.backend_port()), name=name or match)
        return attrs.evolve(made, under=(under,))

    def peer(self, name: str | None = "a.example", **settings: Any) -> SecurePeer:
        context = settings.pop("context", None) or client_context(self.ca, **settings)
        return SecurePeer((context, name))

    def hello(self) -> bytes:
        first = self.peer().layers[0]
        first.advance()
        return first.outgoing.read()

    async def client(self, port: int, name: str = "a.example", **settings: Any) -> SecurePeer:
        peer = await connect_tls(self, port, self.peer(name, **settings))
        await peer.ready()
        # A client is ready before its last message has come.
        while not all(connection.agreed_tls for connection in self.factory.connections):
            await self.turn()
        return peer

    async def relayed(self, **settings: Any) -> tuple[SecurePeer, Peer]:
        port = self.mux([self.tls_route(), self.inner()], **settings)
        client = await self.client(port)
        client.send(SSH)
        server = await self.backend.heard(len(SSH))
        server.send(b"hello")
        await client.has(5)
        return client, server
