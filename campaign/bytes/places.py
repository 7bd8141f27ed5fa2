"""The ways out: which servers there are, and how each is spoken to."""

from __future__ import annotations

import socket
from pathlib import Path

import attrs
from OpenSSL import SSL

from tests.support.certificates import make_authority
from tests.support.ports import free_port

NAME = "server.test"
OUTSIDE = f"outside.{NAME}"
"""The name of TLS with other TLS in it."""
DOMAIN = "named.test"
"""Each name in it is looked up anew."""
MEMBERS = 4
"""Servers of the pool."""


@attrs.frozen
class Way:
    """How a server is spoken to."""

    letter: str
    proxy: str = ""  # the PROXY header that it expects
    tls: bool = False
    more: str = ""  # lines of the backend


WAYS = (
    Way("K"),
    Way("V", proxy="v1"),
    Way("W", proxy="v2"),
    Way("S"),
    Way("L", more="upload_rate = 16MiB/s\ndownload_rate = 16MiB/s"),
    Way("T", tls=True),
    Way("U", proxy="v2", tls=True),
    Way("X", tls=True),
    Way("F", proxy="v2"),
    Way("R"),
    Way("H"),
    Way("Q", more="max_connections = 4\nqueue = 10000"),
    Way("P", more="retries = 4\nbalance = random"),
    Way("O", more="hold = 2m"),
    Way("N", tls=True),
)
"""All; S listens on a UNIX socket, X is reached by TLS that txmux does not end, N the same by the name that the client asks for, F is asked before its client has spoken, R breaks off
whoever comes, Q has room for few while the others wait, H is given its clients' own sockets,
P is a pool, and O a server that comes and goes while its clients wait for it."""


@attrs.define
class Places:
    """The sockets at which the servers listen, and what they need for TLS.

    Attributes:
        folder: For files.
        listening: By letter; that of P, a pool of which servers come and go, has none.
        members: Ports of the pool's servers.
        held: The port of O.
        names: Where names are looked up.
    """

    folder: Path
    listening: dict[str, socket.socket] = attrs.field(factory=dict, init=False)
    members: list[int] = attrs.field(factory=list, init=False)
    held: int = attrs.field(default=0, init=False)
    names: socket.socket = attrs.field(init=False)

    def open(self) -> None:
        self.folder.chmod(0o711)  # a service may have become another user
        authority = make_authority()
        authority.write(self.folder / "authority.pem")
        authority.issue(NAME).write(self.folder / "server.pem", key=True)
        for way in WAYS:
            if way.letter == "H":
                at = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                at.bind(self.handover)
                at.listen(4096)
            elif way.letter == "S":
                at = socket.socket(socket.AF_UNIX)
                at.bind(str(self.folder / "server.sock"))
                at.listen(4096)
            elif way.letter == "P":
                self.members = [free_port() for _ in range(MEMBERS)]
                continue
            elif way.letter == "O":
                self.held = free_port()
                continue
            else:
                at = socket.create_server(("127.0.0.1", 0), backlog=4096)
            if at.family == socket.AF_UNIX:
                Path(at.getsockname()).chmod(0o666)
            at.setblocking(False)  # noqa: FBT003
            self.listening[way.letter] = at
        self.names = socket.socket(type=socket.SOCK_DGRAM)
        self.names.bind(("127.0.0.1", 0))
        self.names.setblocking(False)  # noqa: FBT003

    def close(self) -> None:
        for at in (*self.listening.values(), self.names):
            at.close()

    @property
    def entry(self) -> str:
        """Give the path of the UNIX socket at which txmux listens."""
        return f"{self.folder}/txmux.sock"

    @property
    def handover(self) -> str:
        """Give the path of the UNIX socket at which a server is given its clients."""
        return f"{self.folder}/handover.sock"

    def servers(self, letter: str) -> list[str]:
        if letter == "S":
            return [f"unix:{self.folder}/server.sock"]
        if letter in "PO":
            ports = self.members if letter == "P" else [self.held]
        else:
            ports = [self.listening[letter].getsockname()[1]]
        if letter == "N":
            return [f"{{sni}}:{ports[0]}"]
        return [f"127.0.0.1:{port}" for port in ports]

    def server_context(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(str(self.folder / "server.pem"))
        context.use_privatekey_file(str(self.folder / "server.pem"))
        return context

    @staticmethod
    def client_context(*, older: bool) -> SSL.Context:
        """Make what clients of TLS need, of 1.2 or 1.3; they trust everybody, since that is not what is tried."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if older:
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
        return context
