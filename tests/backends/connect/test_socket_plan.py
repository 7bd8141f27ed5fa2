"""What the rules say of sockets to servers holds for each of them: `ServerSocketPlan`."""

import socket

from tests.support.kit import MuxTestCase, change_constants
from tests.support.server_sockets import DATAGRAMS, STREAMS, ServerSockets
from txmux.backends.connect import socket_plan
from txmux.net.sockets.plainsocket import IPPROTO_MPTCP, open_multipath
from txmux.rules.reading import sections


class ServerSocketPlanTest(MuxTestCase):
    async def test_options(self) -> None:
        row = sections.TABLES["backend"]["retries"]
        change_constants(
            self, socket_plan, _OPTIONS=[("retries", row, "SOL_SOCKET", "SO_PRIORITY")]
        )
        await ServerSockets(self).assert_everywhere(
            socket.SOL_SOCKET, socket.SO_PRIORITY, 5, retries=5
        )

    async def test_source(self) -> None:
        found = {
            use: its.getsockname()[0]
            async for use, its in ServerSockets(self).sockets(source=("127.0.0.77",))
        }
        self.assertEqual(found, dict.fromkeys((*STREAMS, *DATAGRAMS), "127.0.0.77"))

    async def test_multipath(self) -> None:
        with open_multipath(socket.AF_INET, socket.SOCK_STREAM) as probe:
            protocol = probe.proto
        self.assertIn(protocol, (IPPROTO_MPTCP, 0))  # the system may have none
        option = socket.SOL_SOCKET, socket.SO_PROTOCOL
        found = {
            use: its.getsockopt(*option)
            async for use, its in ServerSockets(self).streams(mptcp=True)
        }
        self.assertEqual(found, dict.fromkeys(STREAMS, protocol or socket.IPPROTO_TCP))
