"""sslh, and txmux with its converted configuration, side by side: the same clients reach the same servers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.children import Child, InteropTestCase, eventually
from tests.interop.originals import (
    CLOSED,
    HELLO,
    HTTP,
    Named,
    client_hello,
    said_at_once,
    said_to,
    start_converted,
)
from tests.processes.running import family_of
from tests.support.ports import free_port

if TYPE_CHECKING:
    from txmux.convert.formats import Conversion

_SSLH = """
foreground: true;
timeout: 1;
on-timeout: "{on_timeout}";
listen: ( {{ host: "127.0.0.1"; port: "{port}"; }} );
protocols: (
{protocols}
);
"""


class SslhTests(InteropTestCase):
    """One configuration, two programs."""

    found: Conversion
    processes: list[int]

    def both(self, *protocols: str, on_timeout: str = "ssh") -> tuple[int, int]:
        """Start sslh, and txmux with what its configuration becomes; give their ports."""
        ports = (free_port(), free_port())
        entries = ",\n".join(f"    {{ {entry} }}" for entry in protocols)
        texts = [_SSLH.format(port=p, protocols=entries, on_timeout=on_timeout) for p in ports]
        file = Path(tempfile.mkdtemp(dir=self.folder)) / "sslh.cfg"
        file.write_text(texts[0])
        original = Child("sslh", f"-F{file}")
        self.addCleanup(original.end)
        eventually(lambda: said_to_quietly(ports[0]), "sslh listens")
        self.found, mux = start_converted(self, texts[1], "sslh")
        self.processes = [*family_of(original.pid), mux.child.pid]
        return ports

    def assert_same(self, ports: tuple[int, int], expected: dict[bytes, str]) -> None:
        """Check that clients are led to the same servers by both."""
        for port, program in zip(ports, ("sslh", "txmux"), strict=True):
            self.assertEqual(self.heard(port, *expected), expected, f"{program}: {self.found.text}")

    def heard(self, port: int, *said: bytes) -> dict[bytes, str]:
        """Give what clients hear that say these."""
        answers = said_at_once(self.processes, [(port, data, "127.0.0.1") for data in said])
        return dict(zip(said, answers, strict=True))

    def entry(self, name: str, more: str = "") -> str:
        """Start a server, and give the entry that leads there."""
        port = Named(self, name).port
        return f'name: "{name}"; host: "127.0.0.1"; port: "{port}"; {more}'

    def test_probes(self) -> None:
        """What a client says leads it, and what says nothing and what nobody knows have places of their own."""
        ports = self.both(
            self.entry("ssh"),
            self.entry("regex", r'regex_patterns: [ "^PING", "^\x01\x02" ];'),
            self.entry("tls", 'sni_hostnames: [ "x.example" ];'),
            self.entry("http"),
            self.entry("anyprot"),
        )
        self.assert_same(
            ports,
            {
                b"": "ssh",
                b"SSH-2.0-x\r\n": "ssh",
                b"PING\r\n": "regex",
                b"\1\2\3\4\5\6\7\n": "regex",
                client_hello("x.example"): "tls",
                HELLO: "anyprot",
                HTTP: "http",
                b"\xff\xfe\xfd what\r\n": "anyprot",
            },
        )
        self.assertEqual(self.found.has_looks, False)

    def test_on_timeout(self) -> None:
        """Who says nothing is led to where ``on-timeout`` says."""
        ports = self.both(self.entry("ssh"), self.entry("http"), on_timeout="http")
        self.assert_same(ports, {b"": "http", b"SSH-2.0-x\r\n": "ssh"})

    def test_route_without_server(self) -> None:
        """Clients of a server that could not be converted are led to no other."""
        http = self.entry("http").replace("127.0.0.1", "127.1")
        ports = self.both(self.entry("ssh"), http, self.entry("anyprot"))
        self.assertTrue(self.found.has_looks)
        other = b"\xff\xfe\xfd what\r\n"
        for port, by_http in zip(ports, ("http", CLOSED), strict=True):
            self.assertEqual(self.heard(port, HTTP, other), {HTTP: by_http, other: "anyprot"})


def said_to_quietly(port: int) -> bool:
    """Tell whether somebody listens."""
    return said_to(port, b"SSH-2.0-x\r\n") != CLOSED
