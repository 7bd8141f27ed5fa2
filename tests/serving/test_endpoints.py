import errno
import gc
import os
import socket
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import attrs
from twisted.internet.error import CannotListenError
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import PeerFactory, authority, has_ipv6, listen, make_folder, reactor
from txmux.errors import ListenError
from txmux.rules.model import Listener
from txmux.serving import endpoints
from txmux.serving.listen_addresses import listen_addresses


class _Port:
    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.accepted: list[socket.socket] = []

    def fileno(self) -> int:
        return self._listening.fileno()

    def doRead(self) -> None:
        self.accepted.append(self._listening.accept()[0])


def _descriptors() -> int:
    gc.collect()  # older versions of Twisted leave a socket to it that could not be bound
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class OpenTest(TestCase):
    """What Twisted opens."""

    def setUp(self) -> None:
        pem = authority().issue("a.example").write(make_folder(self) / "a.pem", key=True)
        ssl = f"ssl:PORT:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
        self.good = Listener("a", (ssl.replace("PORT", "0"),))
        self.taken = Listener("b", (ssl.replace("PORT", str(listen(self, PeerFactory()))),))
        self.bad = Listener("c", (ssl.replace("PORT", "0").replace("a.pem", "none.pem"),))

    async def test_all_or_those_that_can_be(self) -> None:
        """If one cannot, the others are closed, or it is noted as lacking; what is plain, or open already, is not touched."""
        plain = Listener("plain", ("127.0.0.1:0",))
        with capturedLogs() as events:
            opened: Any = await endpoints.open_ports(reactor, [plain, self.good])
        [(key, (port, forwarding))] = opened.items()
        where = f"127.0.0.1:{port.getHost().port}"
        self.assertIn(f"listening on {where} for [listen a]", [*map(formatEvent, events)])
        self.assertEqual(await endpoints.open_ports(reactor, [self.good], {key}.__contains__), {})
        socket.create_connection((where[:9], port.getHost().port)).close()
        self.assertIsNone(forwarding.to)
        await endpoints.stop_listening(port)
        in_use = "Address already in use; another program has it"
        for wrong, why in ((self.taken, in_use), (self.bad, "No such file")):
            before = _descriptors()
            told = f"\\[listen {wrong.name}\\] endpoint: cannot listen at .*{why}"
            with self.assertRaisesRegex(ListenError, told):
                await endpoints.open_ports(reactor, [self.good, wrong])
            self.assertEqual(_descriptors(), before)
            lacking = list[str]()
            opened = await endpoints.open_ports(reactor, [wrong, self.good], lacking=lacking)
            self.assertEqual((len(opened), len(lacking)), (1, 1))
            self.assertIn(why, lacking[0])
            for port, _ in opened.values():
                await endpoints.stop_listening(port)
        stuck: Any = SimpleNamespace(stopListening=Mock(side_effect=PermissionError("no")))
        with capturedLogs() as events:
            await endpoints.stop_listening(stuck)  # one that cannot be closed
        [line] = map(formatEvent, events)
        self.assertIn("a listening socket cannot be removed: no", str(line))

    def test_why_there_is_no_socket(self) -> None:
        names = "EADDRINUSE", "EADDRNOTAVAIL", "EACCES", "EMFILE", "ENOENT"
        numbers = (getattr(errno, name) for name in names)
        in_use, none, denied, full, folder = (OSError(one, os.strerror(one)) for one in numbers)
        for text, cause, why in (
            ("127.0.0.1:1", in_use, "(ss -ltnp shows which): stop that one or choose another port"),
            ("udp:127.0.0.1:1", in_use, "(ss -lunp shows which): stop that one or choose another port; an old worker of txmux"),
            ("127.0.0.1:1", CannotListenError("127.0.0.1", 1, in_use), "Address already in use; another"),
            ("192.0.2.1:1", none, "no interface of this machine has that address: see"),
            ("127.0.0.1:1", denied, "Permission denied; ports below 1024 need root"),
            ("unix:/x/y", denied, "Permission denied; let the user that txmux runs as write to its folder"),
            ("127.0.0.1:1", full, "raise the limit (LimitNOFILE=, ulimit -n), or restart txmux"),
            ("unix:/nowhere/x:mode=600", folder, " at unix:/nowhere/x:mode=600: "), ("systemd:domain=INET:index=7", LookupError(), "no such socket was passed"),
            ("127.0.0.1:1", ValueError("odd"), "odd"), ("127.0.0.1:1", OSError(errno.EADDRINUSE, "mine: yours"), "at 127.0.0.1:1: mine: yours"),
            ("127.0.0.1:1-9", in_use, "port 1: Address already in use"),
        ):  # fmt: skip
            [address, *_] = listen_addresses(Listener("x", (text,)))
            error = str(endpoints.listen_error(address, cause))
            self.assertTrue(error.startswith("[listen x] endpoint: cannot listen at "), error)
            self.assertIn(why, error)
        for text, shown in (("unix:/x/y:mode=600", "unix:/x/y"), ("tcp:1", "tcp:1")):
            [address] = listen_addresses(Listener("x", (text,)))
            error = str(endpoints.listen_error(attrs.evolve(address, setting="admin"), denied))
            self.assertIn(f"[txmux] admin: cannot listen at {shown}: Permission denied", error)


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
        endpoints.accept_last(port)  # type: ignore[arg-type]
        self.assertEqual(late, [])  # it is closed by now
