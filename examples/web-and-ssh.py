"""A web site and an SSH server in one process, on one port.

Run it with ``python web-and-ssh.py --port 8000`` and do what it prints. It needs ``twisted[conch]``.

No second socket is opened: txmux looks at a client's first bytes and hands the connection, those bytes included, to
the Twisted factory they are meant for. So both servers see the client's real address.
"""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import InMemorySSHKeyDB, SSHPublicKeyChecker
from twisted.conch.interfaces import ISession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ProcessDone
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from txmux import Listener, MuxFactory, outcome, route

if TYPE_CHECKING:
    from twisted.web.server import Request

USER = "guest"


class Page(Resource):
    """Greets HTTP clients."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Give the page."""
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return f"Hello by HTTP, {request.getClientAddress().host}.\n".encode()


@implementer(ISession)
class Visitor(ConchUser):
    """Someone who has logged in by SSH: is greeted, whatever they ask for, and gets no shell."""

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self.channelLookup[b"session"] = SSHSession
        self._reactor = reactor

    def openShell(self, client: Any) -> None:
        """Greet, and end the session."""
        client.write(f"Hello by SSH, {client.getPeer().address.host}.\r\n")
        # Not at once: the client is first told that its request was granted.
        self._reactor.callLater(0, client.processEnded, Failure(ProcessDone(0)))

    def execCommand(self, client: Any, command: bytes) -> None:  # noqa: ARG002
        """Do the same instead of running a command."""
        self.openShell(client)

    def getPty(self, *terminal: object) -> None:
        """Need no terminal."""

    def windowChanged(self, size: object) -> None:
        """Need no terminal."""

    def eofReceived(self) -> None:
        """Expect no input."""

    def closed(self) -> None:
        """Keep nothing of a session that has ended."""


@implementer(IRealm)
class House:
    """Takes in all whom a checker has let pass."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def requestAvatar(self, _name: object, _mind: object, *interfaces: Any) -> Any:
        """Give a visitor."""
        return interfaces[0], Visitor(self._reactor), lambda: None


def read_keys(file: Path) -> list[Key]:
    """Read a file of public keys, one a line."""
    lines = (line.strip() for line in file.read_bytes().splitlines())
    return [Key.fromString(line) for line in lines if line and not line.startswith(b"#")]


def ssh_factory(reactor: Any, password: str, authorized_keys: list[Key]) -> Any:
    """Make an SSH server with a new host key, for one user.

    Args:
        reactor: Runs it.
        password: Lets the user in.
        authorized_keys: So does any of these.
    """
    passwords = InMemoryUsernamePasswordDatabaseDontUse(**{USER: password.encode()})
    keys = SSHPublicKeyChecker(InMemorySSHKeyDB({USER.encode(): authorized_keys}))
    host_key = Key(Ed25519PrivateKey.generate())
    factory: Any = SSHFactory()
    factory.portal = Portal(House(reactor), [passwords, keys])
    factory.privateKeys = {host_key.sshType(): host_key}
    factory.publicKeys = {host_key.sshType(): host_key.public()}
    return factory


async def main(reactor: Any, port: int, authorized_keys: list[Key]) -> None:
    """Serve until interrupted.

    Args:
        reactor: Runs it all.
        port: The TCP port, on 127.0.0.1 only; 0 for any that is free.
        authorized_keys: What lets the user in besides the password that is printed.
    """
    password = secrets.token_urlsafe(9)
    ssh = ssh_factory(reactor, password, authorized_keys)
    mux = MuxFactory(
        [route("ssh", ssh), route("http", Site(Page()))],
        # Some SSH clients wait for the server to speak.
        Listener("web-and-ssh", silent=outcome(ssh)),
    )
    listening: Any = await TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(mux)
    number = listening.getHost().port
    print(f"On port {number} of 127.0.0.1 there are a web site and an SSH server. Try:")
    print(f"  curl http://127.0.0.1:{number}/")
    print(f"  ssh -p {number} {USER}@127.0.0.1    # the password is {password}", flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A web site and an SSH server on one port.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--authorized-keys", type=Path, metavar="FILE", help="one key a line")
    arguments = parser.parse_args()
    keys = read_keys(arguments.authorized_keys) if arguments.authorized_keys else []
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, arguments.port, keys)))
