import contextlib
import socket
from collections import Counter

from tests.cli.support import CommandTestCase
from tests.interop.quic.case import Server
from tests.interop.servers import make_certificate
from tests.support.changes import change_constants
from txmux.features.test import test as port_test


class QuicTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        change_constants(self, port_test, _APART=0.0)

    def test_server(self) -> None:
        server = Server("site", make_certificate(self.folder, "example.com"))
        self.addCleanup(server.end)
        address = f"127.0.0.1:{server.port}"
        code, output, error = self.run_main("test", address, "--udp", "--timeout=1")
        self.assertEqual((code, error), (0, ""), output)
        for line in (
            r"whole +answered +\d+ ms +certificate example\.com\n",
            "in 2 datagrams, any order +2 of 2 +the same certificate\n",
            "in 3 datagrams, any order +6 of 6 +the same certificate\n",
            r"half, then silence +no answer after 1\.\d s\n",
        ):
            self.assertRegex(output, line)

    def test_silence(self) -> None:
        """Each client sends its hello again and again, until its time is over."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            code, _, error = self.run_main("test", address, "--udp", "--timeout=1")
            silent.setblocking(False)  # noqa: FBT003 - of the library
            clients: Counter[object] = Counter()
            with contextlib.suppress(BlockingIOError):
                while True:
                    clients[silent.recvfrom(65536)[1]] += 1
        self.assertEqual(code, 3)
        self.assertIn("no answer, although nothing was cut", error)
        self.assertEqual(len(clients), 3)
        self.assertGreater(min(clients.values()), 1)
