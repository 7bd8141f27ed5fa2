"""One configuration at a time, served by the program that it is for, and by txmux with what it becomes."""

import contextlib
import re
import shlex
import socket
import ssl
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, listens, write
from tests.interop.originals import HTTP, Named, client_hello
from tests.interop.servers import nginx_stream
from tests.support.echo import Talk
from tests.support.ports import free_port
from txmux.detection.registry import installed_matchers
from txmux_convert import Program
from txmux_convert.formats import Conversion, convert, convert_command_line

_DEFAULTS = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout check 3s
"""
_ONE_PORT = """\
foreground: true;
timeout: 1;
listen: ( { host: "127.0.0.1"; port: "<port>"; } );
"""
_COMMANDS = {
    "haproxy": ("haproxy", "-W", "-db", "-f", "{file}"),
    "nginx": ("nginx", "-e", "stderr", "-p", "{folder}", "-c", "{file}"),
    "sniproxy": ("sniproxy", "-f", "-c", "{file}"),
    "sslh": ("sslh", "-F{file}"),
    "stunnel": ("stunnel", "{file}"),
}
_READY = {"haproxy": "Loading success", "nginx": "start worker process "}
_READY["stunnel"] = "Configuration successful"
Led = Mapping[str, str]
_TOKEN = re.compile(r"<([a-z]+)([0-9]*)(\.port)?>")


class SideBySideTestCase(InteropTestCase):
    """Both programs, and the clients of both.

    In a configuration stand ``<port>``, ``<port1>`` … for ports to listen on, ``<folder>`` for a folder with its files, ``<gone>`` for the
    address of nobody, and any other name in such brackets for the address of a server that says this name; ``<NAME.port>`` is only its port.
    What sniproxy and txmux say to a client that they do not serve is ``refused``.
    """

    program: ClassVar[Program]
    txmux: ClassVar[Child]
    found: Conversion

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        module = "tests.interop.converted.many"
        cls.txmux = cls.share(Child(sys.executable, "-m", module, stdin=True))

    def setUp(self) -> None:
        self.addCleanup(self.forget)
        self.servers: dict[str, Named] = {}
        self.own_folder = self.make_folder()
        self.ports: list[dict[str, int]] = [{}, {}]

    def start(self, text: str) -> None:
        text = self.whole(dedent(text).lstrip("\n"))
        ours, theirs = (self._filled(text, ports) for ports in reversed(self.ports))
        file = write(self.own_folder / "original.cfg", theirs)
        self.start_original(file)
        self.found = self.converted(ours, file)
        rules = write(self.own_folder / "rules.ini", self.found.text.replace("# LOOK:", "#"))
        answer = self.tell_txmux(str(rules), f"(serving|refused) {re.escape(str(rules))}.*")
        self.assertEqual(answer[1], "serving", f"{answer[0]}\n{self.found.text}")

    def write(self, name: str, text: str) -> None:
        """Write a file beside the configuration, in which servers may stand as they do there."""
        write(self.own_folder / name, self._filled(text, {}))

    def tell_txmux(self, line: str, pattern: str) -> re.Match[str]:
        stdin = self.txmux.process.stdin
        assert stdin is not None
        stdin.write(f"{line}\n".encode())
        stdin.flush()
        return self.txmux.wait_for(pattern)

    def forget(self) -> None:
        """Have txmux stop what it serves: it would go on to look at ports that somebody else has by then."""
        word = f"stop {self.own_folder}"
        self.tell_txmux(word, f"^stopped {re.escape(word)}$")

    def converted(self, text: str, file: Path) -> Conversion:
        matchers = installed_matchers()
        if text.startswith("sslh "):
            return convert_command_line(shlex.split(text), matchers, lambda _: None)
        return convert(text.encode(), str(file), matchers, lambda _: None, self.program)

    def whole(self, text: str) -> str:
        """Complete a short configuration: for nginx a ``stream`` block or what is in one, where ``upstreams A B;`` are groups of a server each."""
        match self.program:
            case "haproxy":
                return _haproxy_whole(text)
            case "nginx":
                if text.startswith("stream {"):
                    text = text.removeprefix("stream {").rpartition("}")[0]
                for names in re.findall("(?m)^upstreams (.*);$", text):
                    own = (f"upstream {name} {{ server <{name}>; }}" for name in names.split())
                    text = text.replace(f"upstreams {names};", "\n".join(own))
                return nginx_stream(self.own_folder, text)
            case "sslh" if text.startswith("protocols"):
                return f"{_ONE_PORT}{text}"
            case "stunnel":
                return f"foreground = yes\nsyslog = no\npid =\n{text}"
        return text

    def start_original(self, file: Path) -> None:
        """Start the program; a file of variables for sslh is read by a shell, as its start script has it."""
        text = file.read_text()
        words = [word.format(file=file, folder=self.own_folder) for word in _COMMANDS[self.program]]
        if text.startswith("sslh "):
            words = shlex.split(text)
        elif "DAEMON_OPTS=" in text:
            words = ["sh", "-c", '. "$0"; exec "$DAEMON" -f $DAEMON_OPTS', str(file)]
        self.original = self.own(Child(*words, ready=_READY.get(self.program, "")))
        if self.program not in {"haproxy", "nginx"}:  # they would log these connections
            eventually(lambda: all(map(listens, self.ports[0].values())), "the program listens")

    def prove(self, text: str, *expected: Led, looks: int = 0, soon: bool = False) -> None:
        """Start both with a configuration, and check that clients are led to the same servers by both.

        For each port it is `expected` which clients each server has, or none; ``CLIENT from ADDRESS`` comes from another address. So
        many lines are to be looked at; it is so `soon` if servers have to be checked before.
        """
        self.start(text)
        self.assertEqual(self.found.text.count("# LOOK:"), looks, self.found.text)
        heard: list[dict[str, str]] = [{} for _ in expected]
        for led, one in zip(heard, expected, strict=True):
            for server, them in one.items():
                clients = them.replace("<folder>", str(self.own_folder))
                led.update(dict.fromkeys(clients.split(", "), server))
        if soon:
            self.await_alike(*heard)
        self.assert_alike(*heard)

    def await_alike(self, *expected: Led) -> None:
        """Wait until clients have been led as they should several times in a row, or some minutes have passed."""
        wanted = [list(map(dict, expected))] * 2
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if all(self.answers(expected) == wanted for _ in range(4)):
                return

    def assert_alike(self, *expected: Led) -> None:
        for program, found in zip((self.program, "txmux"), self.answers(expected), strict=True):
            self.assertEqual(found, list(map(dict, expected)), f"{program}\n{self.found.text}")

    def answers(self, expected: Sequence[Led]) -> list[list[dict[str, str]]]:
        clients = [(number, one) for number, its in enumerate(expected) for one in its]
        asked = [(which, *one) for which in (0, 1) for one in clients]

        def ask(which: int, number: int, client: str) -> str:
            name, _, source = client.partition(" from ")
            port = self.ports[which][f"port{number or ''}"]
            said = heard(name, port, source=source or "127.0.0.1")
            return _REFUSAL.sub("refused", said) if self.program == "sniproxy" else said

        with ThreadPoolExecutor(16) as threads:
            heard_by = dict(zip(asked, threads.map(lambda one: ask(*one), asked), strict=True))
        found: list[list[dict[str, str]]] = [[{} for _ in expected] for _ in (0, 1)]
        for (which, number, client), said in heard_by.items():
            found[which][number][client] = said
        return found

    def _filled(self, text: str, ports: dict[str, int]) -> str:
        def value(found: re.Match[str]) -> str:
            name, number, port = found.groups()
            if name == "port":
                return str(ports.setdefault(name + number, free_port()))
            if name == "folder":
                return str(self.own_folder)
            if name == "gone":
                return str(free_port()) if port else f"127.0.0.1:{free_port()}"
            server = self.servers.get(name + number)
            if server is None:
                server = self.servers[name + number] = Named(self, name + number)
            return str(server.port) if port else f"127.0.0.1:{server.port}"

        return _TOKEN.sub(value, text)


def _haproxy_whole(text: str) -> str:
    """Have timeouts, ``mode tcp`` where nothing else is said, and a server of its name for each backend that is not there."""
    named = re.findall(r"(?m)(?:use|default)_backend ([a-z]+)(?: if| unless|$)", text)
    for name in dict.fromkeys(named):
        if not re.search(rf"^(backend|listen) {name}$", text, re.MULTILINE):
            text += f"backend {name}\n    server s <{name}>\n"
    return text if "\ndefaults" in f"\n{text}" else f"{_DEFAULTS}{text}"


def replying(replies: Mapping[bytes, bytes], greeting: bytes = b"") -> Talk:
    """Make a server's talk: it greets, and says what belongs to each word that it hears."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)
        said = b""
        while piece := connection.recv(4096):
            said += piece
            for word, reply in replies.items():
                if word in said:
                    said = said.partition(word)[2]
                    connection.sendall(reply)

    return talk


_HANDSHAKE = b"\x16"
_REFUSAL = re.compile("^(\x15\x03|HTTP/1.1 (403|503) ).*", re.DOTALL)
_SPEAKING = threading.Lock()
"""One client at a time is between its connection and what it says first: if it had to wait for others there, it would be a silent one."""
_OLD = "old"
_DATA = {
    "silent": b"",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "http": HTTP,
    "post": b"POST /upload HTTP/1.1\r\nHost: b.example\r\n\r\n",
    "upgrade": b"GET /x HTTP/1.1\r\nHost: b.example\r\nUpgrade:  WebSocket\r\n\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "openvpn": bytes.fromhex("000e38a1b2c3d4e5f60708") + bytes(5),
    "rdp": bytes.fromhex("0300002b26e00000000000")
    + b"Cookie: mstshash=alice\r\n"
    + bytes.fromhex("0100080003000000"),
    "xmpp": b"<?xml version='1.0'?><stream:stream to='jabber.example' version='1.0'>",
    "socks": b"\x05\x01\x00",
    "binary": b"\x00\x01\x02\x03\r\n",
    "text": b"hello there\r\n",
    "half": b"\x16\x03\x01",
}


def heard(client: str, port: int, *, source: str = "127.0.0.1") -> str:
    """Be a client, and give the first line that is heard; nothing if the connection ends before.

    Args:
        client: ``hello [NAME] [alpn=A,B] [old]``, the first message of TLS and no more, of TLS 1.2 if it is old;
            ``tls [NAME] [alpn=A,B] [cert=FILE] DATA``, TLS with `DATA` inside it; ``get [HOST]``, a request of HTTP;
            or `DATA`: one of those above.
        port: Where to connect on 127.0.0.1.
        source: The address that it comes from.
    """
    kind, *words = client.split()
    secured = kind == "tls"
    if secured:
        *words, kind = words
    # All is made before the connection, lest a busy machine make a silent client of any.
    context, name = _trusting_all(words), _name(words)
    data = first_bytes(" ".join((kind, *words)))
    with contextlib.suppress(ConnectionError, ssl.SSLError), contextlib.ExitStack() as opened:
        with _SPEAKING:
            stream = socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))
            if secured:
                stream = context.wrap_socket(stream, server_hostname=name)
            opened.enter_context(stream)
            stream.sendall(data)
        return _answer(stream)
    return ""


def await_heard(client: str, port: int, server: str) -> None:
    eventually(lambda: heard(client, port) == server, "there is room again")


def first_bytes(client: str) -> bytes:
    """Give what a client without TLS of its own says first; see `heard`."""
    kind, *words = client.split()
    if kind == "get":
        return f"GET / HTTP/1.1\r\n{''.join(f'Host: {name}' for name in words)}\r\n\r\n".encode()
    if kind == "hello":
        return client_hello(_name(words), _trusting_all(words))
    return _DATA[kind]


def _answer(stream: socket.socket) -> str:
    found = b""
    # A handshake has no lines: some of its random bytes may look like the end of one.
    while (found[:1] == _HANDSHAKE or not found.endswith(b"\n")) and (piece := stream.recv(4096)):
        found += piece
    return found.decode("latin-1").partition("\n")[0].strip()


def _trusting_all(words: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    offered = [word.removeprefix("alpn=") for word in words if word.startswith("alpn=")]
    if _OLD in words:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    for word in words:
        if word.startswith("cert="):
            context.load_cert_chain(word.removeprefix("cert="))
    if offered:
        context.set_alpn_protocols(offered[0].split(","))
    return context


def _name(words: list[str]) -> str | None:
    names = [word for word in words if "=" not in word and word != _OLD]
    return names[0] if names else None
