"""Text that others choose commands no terminal and begins no line of its own: in no view of a service."""

import contextlib
import json
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

from tests.interop.children import write
from tests.support.kit import PATIENCE, Child, InteropTestCase, eventually, make_authority, run
from tests.support.secure import client_context
from tests.support.services import command_for
from tests.wire.hello_builder import alpn, client_hello, records, server_name

_HOSTILE = "\x1b[31m\x1b]0;owned\a\x9b1A\u202e\r\u2028\x7fX"
"""Of a terminal: colours, title and cursor; beside it, what turns text around, and what ends a line for some programs."""
_SHOWN = r"\x1b[31m"
_FILE = "a\x1b]0;owned\a\x9b1A\u202eX.pem"

_RULES = """
[txmux]
workers = 1
admin =
    127.0.0.1:0
    unix:{folder}/admin.sock
admin_token = {folder}/token
access_log = {log}
access_log_format = {form}
[listen public]
endpoint = 127.0.0.1:0
default = close
[listen datagrams]
endpoint = udp:127.0.0.1:0
default = close
[route secure]
under = *
match = tls sni=a.example
terminate_tls = {folder}/{pem}
tls_client_ca = {folder}/ca.pem
[route inside]
match = any
under = secure
backend = 127.0.0.1:{server}
[route rest]
under = *
match =
    http
    postgres user=*
    tls sni=*
    ssh
    mqtt
backend = 127.0.0.1:{server}
"""

_READING = (
    "/api/status", "/api/connections", "/api/recent", "/api/routes", "/api/backends", "/api/certificates",
    "/api/clients", "/api/bans", "/api/rules", "/api/openapi.json",
)  # fmt: skip
_COMMANDS = (
    ("status",), ("connections",), ("events",), ("certificates",), ("servers",), ("clients",), ("bans",),
    ("status", "--json"), ("connections", "--json"), ("certificates", "--json"),
)  # fmt: skip


def _texts(document: object) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for name, value in document.items():
            yield name
            yield from _texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)


class HostileTextTests(InteropTestCase):
    def assert_harmless(self, text: str, where: object, ends: str = "\n\t") -> None:
        hidden = {one for one in text if not one.isprintable() and one not in ends}
        self.assertEqual(hidden, set(), where)

    def start(self, form: str, *, by_run: bool, own_file: bool) -> None:
        self.log = self.files / "access.log"
        log = self.log if own_file else "-"
        port = self.server.getsockname()[1]
        own = {"folder": self.files, "log": log, "form": form}
        rules = write(self.files / "rules.ini", _RULES.format(**own, server=port, pem=_FILE))
        self.child = child = self.own(Child(*map(str, command_for(rules, by_run=by_run))))
        self.ports = {
            name: int(child.wait_for(rf"listening on \S+:(\d+) for \[{name}")[1])
            for name in ("listen public", "listen datagrams", r"txmux\] admin")
        }
        child.wait_for("Starting reactor|, rules ")

    def connect(self) -> socket.socket:
        there = ("127.0.0.1", self.ports["listen public"])
        return self.enterContext(socket.create_connection(there, PATIENCE))

    def say(self, said: bytes) -> None:
        self.connect().sendall(said)

    def clients(self) -> None:
        text = _HOSTILE.encode()
        for before in (b"", b"\xff"):
            self.say(before + b"GET /%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (text, text))
        startup = b"\0\3\0\0user\0%b\0database\0%b\0\0" % (text, text)
        self.say((4 + len(startup)).to_bytes(4, "big") + startup)
        self.say(b"SSH-2.0-%b\r\n" % text)
        self.say(records(client_hello(server_name(text.decode("latin-1")), alpn(text))))
        context = client_context(None)
        context.load_cert_chain(self.files / "me.pem")
        secured = context.wrap_socket(self.connect(), server_hostname="a.example")
        self.enterContext(secured).sendall(text)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(text, ("127.0.0.1", self.ports["listen datagrams"]))

    def asked(self, path: str, accept: str = "*/*", method: str = "GET", body: str = "") -> str:
        asking = HTTPConnection("127.0.0.1", self.ports[r"txmux\] admin"], timeout=PATIENCE)
        self.addCleanup(asking.close)
        token = (self.files / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": accept}
        asking.request(method, path, body or None, {**headers, "Content-Type": "application/json"})
        return asking.getresponse().read().decode()

    def read(self, path: str) -> Any:
        return json.loads(self.asked(path))

    def test_no_view_has_it(self) -> None:
        self.files = self.make_folder()
        authority = make_authority(_HOSTILE)
        authority.write(self.files / "ca.pem")
        make_authority(_HOSTILE, "a.example").write(self.files / _FILE, key=True)
        client = authority.issue("client.example", usage=False, units=[_HOSTILE])
        client.write(self.files / "me.pem", key=True)
        self.server = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        ways = (("text", True, False), ("json", False, False), ("json", True, True))
        for form, by_run, own_file in ways:
            self.start(form, by_run=by_run, own_file=own_file)
            self.clients()
            eventually(lambda: len(self.read("/api/connections")) >= 4, "they are there")
            self.views()
            if form == "text":
                self.commands()
            self.child.end()
            self.assert_harmless(self.child.output, "the service's log", "\n\t")
            if own_file:
                for line in self.log.read_text().splitlines():
                    for text in _texts(json.loads(line)):
                        self.assert_harmless(text, line)

    def views(self) -> None:
        bytes_of = {"listener": "public", "text": f"SSH-2.0-{_HOSTILE}\r\n"}
        for method, path, body in (
            ("POST", f"/api/backends/{quote(_HOSTILE)}", "{}"),
            ("POST", "/api/bans", json.dumps({"network": "192.0.2.1", "reason": _HOSTILE})),
            ("POST", "/api/connections/close", json.dumps({"route": _HOSTILE})),
            ("GET", f"/api/connections?route={quote(_HOSTILE)}&client={quote(_HOSTILE)}", ""),
            ("POST", "/api/explain", json.dumps(bytes_of)),
            *(("GET", path, "") for path in _READING),
        ):
            for text in _texts(json.loads(self.asked(path, method=method, body=body))):
                self.assert_harmless(text, path, "\r\n\t")
        self.assertIn(_SHOWN, "".join(_texts(self.read("/api/certificates"))))
        connections = self.read("/api/connections")
        self.assertIn(_SHOWN, "".join(_texts(connections)))
        self.assert_harmless(self.asked("/metrics"), "metrics", "\n")
        explained = f"/?explain={_HOSTILE.encode().hex()}&on=public"
        pages = ["/", "/?have=", f"/?route={quote(_HOSTILE)}", explained]
        pages += [f"/?connection={row['id']}" for row in connections]
        for page in pages:
            shown = self.asked(page, "text/html")
            if page == "/?have=":
                shown = "".join(_texts(json.loads(shown)))
            self.assert_harmless(shown, page)
        self.assertIn(_SHOWN, self.asked("/"))

    def commands(self) -> None:
        there = ("--admin", f"unix:{self.files}/admin.sock")
        for words in _COMMANDS:
            done = run(sys.executable, "-m", "txmux", *words, *there)
            self.assertEqual(done.returncode, 0, (words, done.stderr))
            for shown in (done.stdout, done.stderr):
                self.assert_harmless(shown.decode(), words)
                with contextlib.suppress(ValueError):
                    for text in _texts(json.loads(shown)):
                        self.assert_harmless(text, words)
