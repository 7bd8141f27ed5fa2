from pathlib import Path

from tests.support.kit import MuxTestCase, close
from txmux.net.sockets.poller import is_available
from txmux.rules.reading.parser import parse

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
[route all]
match = any
backend = b
[backend b]
server = 127.0.0.1:{port}
{backend}
"""


class StagesTest(MuxTestCase):
    skip = None if is_available() else "the fast path needs Linux"

    async def has_stages(self, backend: str) -> bool:
        rules = parse(_RULES.format(port=self.backend_port(), backend=backend), Path("rules.ini"))
        [settings] = rules.listeners
        client, peer = await self.both(self.mux_for(rules.routes, settings), b"hello")
        [connection] = self.factory.connections
        found = connection.transport is not None
        close(client, peer)
        await self.until_logged(len(self.records) + 1)
        return found

    async def test_keys_of_backends(self) -> None:
        """What decides on a server, its socket and the PROXY header needs no stages; what a queue or a relay alone does needs them."""
        for keys, has_stages in (
            ("", False), ("source = 127.0.0.1", False), ("balance = source-hash", False),
            ("proxy_protocol = v2\nproxy_tlvs = unique-id", False), ("idle_timeout = 3s", False),
            ("idle_timeout = 2s", True), ("queue = 1", True), ("max_duration = 1h", True),
            ("upload_rate = 1MiB/s", True), ("download_rate = 1MiB/s", True), ("mptcp = yes", True),
        ):  # fmt: skip
            self.assertIs(await self.has_stages(keys), has_stages, keys)
