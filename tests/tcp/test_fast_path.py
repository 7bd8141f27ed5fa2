"""What the fast path serves: only what each key says that it does."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs

from tests.support.mux import MuxTestCase
from tests.support.peers import close
from txmux.client import configuration
from txmux.net.sockets.poller import is_available
from txmux.rules.reading import backend, listener, route, sections
from txmux.rules.reading.parser import parse
from txmux.rules.reading.values import SectionKey, number, with_defaults

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
{listen}
[route all]
match = any
backend = b
{route}
[backend b]
server = 127.0.0.1:{port}
{backend}
"""
_SECTIONS: tuple[tuple[str, Any, str], ...] = (
    ("listen", listener, "Listener"), ("route", route, "Route"), ("backend", backend, "Backend"),
)  # fmt: skip


class UnknownKeyTest(MuxTestCase):
    """A key that nobody has thought of takes the stages, where what it is for may be; it is never overlooked."""

    skip = None if is_available() else "the fast path needs Linux"

    def add_key(self, kind: str, module: Any, model: str) -> None:
        def with_attribute(made: type) -> type:
            attributes = {"unthought": attrs.field(default=0, kw_only=True)}
            return attrs.make_class(model, attributes, bases=(made,), frozen=True)

        key = {"unthought": SectionKey(number(0, 9), "what nobody has thought of")}
        keys = {**module.KEYS, **with_defaults(SimpleNamespace(unthought=0), key)}
        self.patch(module, "KEYS", keys)
        self.patch(module, model, with_attribute(getattr(module, model)))
        self.patch(sections, "TABLES", {**sections.TABLES, kind: keys})
        if kind == "route":
            its = configuration.CompiledRoute
            self.patch(configuration, "CompiledRoute", with_attribute(its))

    async def has_stages(self, **lines: str) -> bool:
        usual = {"listen": "", "route": "", "backend": "", "port": self.backend_port()}
        rules = parse(_RULES.format(**usual | lines), Path("rules.ini"))
        [settings] = rules.listeners
        client = await self.connect(self.mux_for(rules.routes, settings), b"hello")
        peer = await self.backend.heard(5, len(self.backend.peers))
        [connection] = self.factory.connections
        found = connection.transport is not None
        close(client, peer)
        await self.until_logged(len(self.records) + 1)
        return found

    async def test_each_section(self) -> None:
        for kind, module, model in _SECTIONS:
            self.add_key(kind, module, model)
            self.assertFalse(await self.has_stages())
            self.assertFalse(await self.has_stages(**{kind: "unthought = 0"}))
            self.assertTrue(await self.has_stages(**{kind: "unthought = 5"}), kind)

    async def test_keys_of_servers(self) -> None:
        """What decides on a server, its socket and the PROXY header needs no stages."""
        for keys in (
            "source = 127.0.0.1",
            "balance = source-hash",
            "proxy_protocol = v2\nproxy_tlvs = unique-id",
        ):
            self.assertFalse(await self.has_stages(backend=keys), keys)
        self.assertTrue(await self.has_stages(backend="queue = 1"))
