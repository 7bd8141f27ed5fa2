import errno
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import has_ipv6
from txmux.serving import endpoints


class _Port:
    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.accepted: list[socket.socket] = []

    def fileno(self) -> int:
        return self._listening.fileno()

    def doRead(self) -> None:
        self.accepted.append(self._listening.accept()[0])


class LastTest(SynchronousTestCase):
    def test_none_is_cut(self) -> None:
        """Who comes after the last look at the queue, and before the socket is shut down, is refused, as who comes later."""
        look, late = endpoints.accept_waiting, list[int]()

        def look_and_come(port: object) -> None:
            look(port)  # type: ignore[arg-type]
            with socket.socket(listening.family) as client:
                client.settimeout(0.1)
                late.append(client.connect_ex(listening.getsockname()))

        self.patch(endpoints, "accept_waiting", look_and_come)
        for host in ("127.0.0.1", "::1", "::") if has_ipv6() else ("127.0.0.1",):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with (
                socket.create_server((host, 0), family=family) as listening,
                socket.create_connection(listening.getsockname()[:2]) as first,
            ):
                first.sendall(b"x")
                port = _Port(listening)
                endpoints.accept_last(port, for_good=True)  # type: ignore[arg-type]
                (accepted,) = port.accepted
                with accepted:
                    self.assertEqual(accepted.recv(2), b"x")
                    first.sendall(b"yz")
                    self.assertEqual(accepted.recv(2), b"yz")
                self.assertEqual(late, [errno.ECONNREFUSED] * 2)
                late.clear()
