from twisted.internet.task import deferLater

from tests.support.peers import PeerFactory, connect, listen, reactor
from tests.support.service import ServiceTestCase


class PauseTest(ServiceTestCase):
    async def test_pause(self) -> None:
        """They are served when clients are accepted again, whatever moves the bytes; others go on."""
        for relay in ("auto", "portable"):
            backend = PeerFactory()
            (port,) = self.run_service(
                f"[txmux]\naccess_log = off\nrelay = {relay}\n[listen x]\nendpoint = 127.0.0.1:0\n"
                f"default = 127.0.0.1:{listen(self, backend)}\n"
            )
            serving = self.running.serving
            assert serving is not None
            first = await connect(self, port)
            first.send(b"a")
            server = await backend.peer(0)
            ports = serving.listening_ports
            ports.keep_flows()  # of datagrams alone
            ports.pause()
            second = await connect(self, port)
            second.send(b"b")
            await first.tell(server, b"a", 2)
            for _ in range(10):
                await deferLater(reactor, 0)
            self.assertEqual(len(backend.peers), 1)
            ports.accept()
            await (await backend.peer(1)).has(1)
            await self._stop()
