"""The configurations in ``PROGRAM.cfg`` here and ``tests/convert/pairs/PROGRAM/served.cfg``, served by their program and by txmux.

Comments at the end of each say for each port which clients come to which server: ``# <port> SERVER: CLIENT, CLIENT``, as `heard` has
them, with ``nobody`` for no server; ``# soon`` if servers have to be checked before, and how many lines of the rules are ``to be looked at``.
Before them may stand ``# certificate NAME NAME`` for one in the folder, ``# file NAME: LINE | LINE``, and ``# server NAME: WHAT`` for one
that does not only say its name: ``tls FILE`` says that inside TLS, with another file ``known`` to clients of its authority, and
``connect TARGET WHAT`` is a proxy before it; ``at HOST OTHER`` is at that address, with the port of another one; ``header`` and
``address`` say what they see of who connects, and ``GREETING | WORD => REPLY | …`` says the first at once, and what belongs to each
word that it hears. What stands for bytes is as in Python.
"""

import os
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

from tests.convert.test_pairs import EXPECTED, PAIRS
from tests.interop.converted.sidebyside import SideBySideTestCase, replying
from tests.support.cases import titled_cases
from tests.support.echo import Talk
from tests.support.kit import Child, Named, make_certificate

_BESIDE = re.compile(r"(?m)^# (certificate|file|server) (.*)\n")


def _raw(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def _secured(said: bytes, file: Path, known: Path | None = None) -> Talk:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if known is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(known)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.sendall(b"known\n" if stream.getpeercert() else said)
            stream.recv(4096)

    return talk


def _tunnel(target: str, talk: Talk) -> Talk:
    def tunnel(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):  # a client may send it line by line
            request += connection.recv(1) or b"\r\n\r\n"
        if request.startswith(f"CONNECT {target} HTTP/1.1\r\n".encode()):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            talk(connection)

    return tunnel


def _tell_header(connection: socket.socket) -> None:
    """Tell the version of a PROXY header, and the client of one that is text."""
    said = connection.recv(4096)
    told = b"v2" if said.startswith(b"\r\n\r\n\0") else b"none"
    if said.startswith(b"PROXY TCP4 "):
        told = said.split()[2]
    connection.sendall(told + b"\n")
    connection.recv(4096)


def _tell_address(connection: socket.socket) -> None:
    connection.sendall(f"{connection.getpeername()[0]}\n".encode())
    connection.recv(4096)


def _answering(name: str, what: str, folder: Path) -> Talk:
    if what.startswith("tls "):
        return _secured(f"{name}\n".encode(), *(folder / file for file in what.split()[1:]))
    if what.startswith("connect "):
        _, target, inside = what.split(" ", 2)
        return _tunnel(target, _answering(name, inside, folder))
    known = {"header": _tell_header, "address": _tell_address}
    if what in known:
        return known[what]
    greeting, *pairs = what.split(" | ")
    replies = (pair.partition(" => ") for pair in pairs)
    return replying({_raw(word): _raw(reply) for word, _, reply in replies}, _raw(greeting))


def _proving(case: str) -> Callable[[SideBySideTestCase], None]:
    expected: dict[str, dict[str, str]] = {}
    for port, server, clients in re.findall(r"(?m)^# <(port\d*)> (\S+): (.*)$", case):
        said = "" if server == "nobody" else _raw(server).decode()
        expected.setdefault(port, {})[said] = clients
    [looks] = re.findall(r"(?m)^# (\d+) to be looked at$", case) or ["0"]

    def test(self: SideBySideTestCase) -> None:
        for kind, told in _BESIDE.findall(case):
            if kind == "certificate":
                make_certificate(self.own_folder, *told.split())
                continue
            name, _, lines = told.partition(": ")
            if kind == "server" and lines.startswith("at "):
                _, host, *other = lines.split()
                port = self.servers[other[0]].port if other else 0
                self.servers[name] = Named(self, name, host=host, port=port)
            elif kind == "server":
                self.servers[name] = Named(self, answer=_answering(name, lines, self.own_folder))
            else:
                self.write(name, lines.replace(" | ", "\n") + "\n")
        text = _BESIDE.sub("", EXPECTED.sub("", case)).rstrip("\n") + "\n"
        self.prove(text, *expected.values(), looks=int(looks), soon="\n# soon\n" in case)

    return test


def _with_cases(its: type[SideBySideTestCase]) -> type[SideBySideTestCase]:
    own = Path(__file__).with_name(f"{its.program}.cfg")
    for path in (PAIRS / its.program / "served.cfg", own):
        for title, case in titled_cases(path.read_text()) if path.exists() else ():
            name = re.sub(r"\W+", "_", title.partition(":")[0])
            setattr(its, f"test_{name}", _proving(case))
    return its


@_with_cases
class HaproxyTests(SideBySideTestCase):
    program = "haproxy"


@_with_cases
class NginxTests(SideBySideTestCase):
    program = "nginx"


@_with_cases
class SniproxyTests(SideBySideTestCase):
    program = "sniproxy"

    def test_names_as_servers(self) -> None:
        """An address in the place of a name is not connected to."""
        if os.geteuid():
            raise SkipTest("sniproxy asks port 53 only, which is root's")
        address = f"127.53.{os.getpid() % 250}.{os.getpid() // 250 % 250}"
        own = (f"--listen-address={address}", "--bind-interfaces", "--address=/example/127.0.0.1")
        dnsmasq = ("dnsmasq", "--no-daemon", "--no-hosts", "--no-resolv", *own)
        self.own(Child(*dnsmasq, ready="started"))
        self.prove(
            f"""
            resolver {{
                nameserver {address}
            }}
            listener 127.0.0.1:<port> {{
                proto http
                table all
            }}
            listener 127.0.0.1:<port1> {{
                proto http
                table all
                fallback <rest>
            }}
            listener 127.0.0.1:<port2> {{
                proto tls
                table some
                source 127.0.0.3
            }}
            table all {{
                .* *:<a.port>
            }}
            table some {{
                \\\\.b\\\\.example$ *:<b.port>
                host host.example <c.port>
            }}
            """,
            {"a": "get x.example", "refused": "get 127.0.0.1, get"},
            {"a": "get x.example", "rest": "get 127.0.0.1, get [::1], get"},
            {"b": "hello a.b.example", "c": "hello host.net", "refused": "hello b.example.net"},
            looks=2,
        )


@_with_cases
class SslhTests(SideBySideTestCase):
    program = "sslh"

    def test_route_without_server(self) -> None:
        """Clients of a server whose address has no counterpart are closed, and reach no other server."""
        self.start(
            """
            foreground: true;
            timeout: 1;
            on-timeout: "http";
            listen: ( { host: "127.0.0.1"; port: "<port>"; } );
            protocols: (
                { name: "ssh"; host: "127.0.0.1"; port: "<ssh.port>"; },
                { name: "http"; host: "127.1"; port: "<web.port>"; },
                { name: "anyprot"; host: "127.0.0.1"; port: "<rest.port>"; }
            );
            """
        )
        self.assertTrue(self.found.has_looks)
        theirs, ours = self.answers([dict.fromkeys(("http", "text", "ssh"), "")])
        self.assertEqual(theirs, [{"http": "web", "text": "rest", "ssh": "ssh"}])
        self.assertEqual(ours, [{"http": "", "text": "rest", "ssh": "ssh"}])


@_with_cases
class StunnelTests(SideBySideTestCase):
    program = "stunnel"

    def test_postgresql_asks_for_tls_first(self) -> None:
        site = make_certificate(self.own_folder, "a.example", "*.a.example")
        self.start(
            """
            [pg]
            accept = 127.0.0.1:<port>
            connect = <pg>
            protocol = pgsql
            cert = <folder>/a.example.both
            """
        )
        context = ssl.create_default_context(cafile=str(site.chain))
        for ports in self.ports:
            for name, said in (("a.example", b"pg\n"), (None, b"pg\n")):
                context.check_hostname = name is not None
                with socket.create_connection(("127.0.0.1", ports["port"]), 60) as plain:
                    plain.sendall(bytes.fromhex("0000000804d2162f"))
                    self.assertEqual(plain.recv(1), b"S")
                    with context.wrap_socket(plain, server_hostname=name) as inside:
                        self.assertEqual(inside.recv(10), said)
            with socket.create_connection(("127.0.0.1", ports["port"]), 60) as plain:
                plain.sendall(bytes.fromhex("0000000900030000") + b"\0")
                self.assertRaises(ConnectionResetError, plain.recv, 1)

    def test_what_is_not_verified_is_to_be_looked_at(self) -> None:
        make_certificate(self.own_folder, "localhost", "b.example")
        far = _answering("far", "tls localhost.both", self.own_folder)
        self.servers["far"] = Named(self, answer=far)
        self.start("client = yes\n[one]\naccept = 127.0.0.1:<port>\nconnect = <far>\n")
        self.assertIn("stunnel takes any certificate", self.found.text)
        self.assertEqual(self.answers([{"text": ""}]), [[{"text": "far"}], [{"text": ""}]])
