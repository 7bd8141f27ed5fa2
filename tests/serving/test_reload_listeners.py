"""Other listeners, and other files beside the rules, while the service runs."""

import os
import signal
import socket
from collections.abc import Callable
from threading import Thread, current_thread, main_thread
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from tests.support.kit import ServiceTestCase, authority, free_port
from tests.support.peers import PeerFactory, connect, listen, reactor
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.support.supervised import LISTEN, SupervisedTestCase, greeted
from txmux.errors import MuxError
from txmux.rules.model import Keepalive, Listener, Settings
from txmux.serving.listen_addresses import listen_addresses
from txmux.telemetry.access_log import FileAccessLog
from txmux.telemetry.formatting import utc_time

_SITE = "[route {0}]\nmatch = tls sni={0}.example\nterminate_tls = acme\nbackend = {1}\n"
_LOG = "[txmux]\naccess_log = LOG\n"

PORT_OPTIONS: dict[str, tuple[str, Callable[[Any, Any], int], int, int]] = {
    "keepalive": ("no", lambda _, transport: transport.getTcpKeepAlive(), 1, 0),
}
"""By keys of ``[listen]``: another value, how the listening socket or a connection shows it, and what that is before and after."""


def _other(value: object) -> Any:
    """Return another value of a key that may be an option of a port: a switch, a number, or none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return Keepalive(7, 8, 9) if isinstance(value, Keepalive) else 1 if value is None else None


def _of_port(listener: Listener) -> object:
    (address,) = listen_addresses(listener)
    return attrs.astuple(address)


class InProcessTest(ServiceTestCase):
    """What a worker does with its ports, in the process of the test."""

    async def test_opened_and_closed(self) -> None:
        """New listeners are opened; one that is gone is closed when those who waited have been served."""
        backend = PeerFactory()
        lead = f"default = 127.0.0.1:{listen(self, backend)}\n"
        [port] = self.run_service(f"{LISTEN}{lead}")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"x")
            self.reload(f"[listen y]\nendpoint = 127.0.0.1:0\n{lead}")
            await (await backend.peer()).has(1)
            with socket.socket() as late:
                self.assertNotEqual(late.connect_ex(("127.0.0.1", port)), 0)
            client.sendall(b"y")
            await (await backend.peer()).has(2)
        (await greeted(self, self.ports()[0])).close()
        await (await backend.peer(1)).has(1)

    async def test_refused(self) -> None:
        """Rules that cannot be served leave all as it was, and nothing open."""
        [port] = self.run_service(_LOG + LISTEN)
        before = (self.running.rules, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        more = "[listen y]\nendpoint = 127.0.0.1:0\n"
        for text in (
            f"{LISTEN}{more}[listen z]\nendpoint = 192.0.2.1:0\n",
            f"[txmux]\naccess_log = missing/log\n{LISTEN}{more}",
            f"{LISTEN}{more}[listen z]\nendpoint = tls:x:0\n",
        ):
            self.assertRaises(MuxError, self.reload, text)
            after = (self.running.rules, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
            self.assertEqual((self.ports(), after), ([port], before))
        await (await greeted(self, port, b"x")).is_lost()
        self.assertIn("reason=no-route", self.log.read_text())
        # How bytes are moved holds until the service stops; to have it changed is refused.
        error = self.assertRaises(MuxError, self.reload, f"[txmux]\nrelay = portable\n{LISTEN}")
        self.assertIn("[txmux] relay: cannot change while the service runs", str(error))
        other = attrs.evolve(self.running.rules, settings=Settings(relay="portable"))
        error = self.assertRaises(MuxError, self.running.reload, other)
        self.assertIn("relay: cannot change", str(error))

    async def test_log_that_is_slow_to_open_again(self) -> None:
        """Clients wait for it no longer after a reload that has made another one."""
        self.run_service(_LOG + LISTEN)
        await deferLater(reactor, 0)  # it runs
        self.reload(f"{_LOG}access_log_format = json\n{LISTEN}")
        opened, opens = Deferred[Thread](), FileAccessLog._open

        def note_thread(log: FileAccessLog) -> int:
            reactor.callFromThread(opened.callback, current_thread())
            return opens(log)

        self.patch(FileAccessLog, "_open", note_thread)
        assert self.running.serving is not None
        self.running.serving.reopen_log()
        self.assertIsNot(await opened, main_thread())

    async def test_port_options(self) -> None:
        """A reload changes each option of a port for the next connections, and keeps the socket."""
        for key, (value, read, before, after) in PORT_OPTIONS.items():
            text = LISTEN.replace("[listen x]", f"[listen {key}]") + "default = PEER\n"
            backend = PeerFactory()
            text = text.replace("PEER", f"127.0.0.1:{listen(self, backend)}")
            [port] = self.run_service(text)
            found: list[int] = []
            for rules in (text, f"{text}{key} = {value}\n"):
                self.reload(rules)
                self.assertEqual(self.ports(), [port])
                client = await greeted(self, port)
                await (await backend.peer(len(found))).has(1)
                connection: Any
                listening: Any
                (connection,) = self.running.listeners[0].connections
                (listening,) = self.running.ports
                found.append(read(listening.socket, connection.transport))
                client.transport.abortConnection()
                await self.until(lambda: not self.running.listeners[0].connections)
            self.assertEqual((key, *found), (key, before, after))
            await self.running.stopService()

    def test_every_port_option(self) -> None:
        """Every key of ``[listen]`` that makes a difference to a port is known to the test above."""
        plain = Listener("x", ("127.0.0.1:1",))
        found = {
            one.name
            for one in attrs.fields(Listener)
            if (value := _other(getattr(plain, one.name))) is not None
            and _of_port(attrs.evolve(plain, **{one.name: value})) != _of_port(plain)
        }
        # An open socket has its address already, and its protocol cannot change.
        self.assertEqual(found - {"freebind", "mptcp"}, {*PORT_OPTIONS})


@pytest.mark.by_turns(each=True)
class ListenersTest(SupervisedTestCase):
    async def test_renamed_listeners_keep_their_sockets(self) -> None:
        """That of UNIX stays until it is removed."""
        path = self.folder / "s"
        listeners = f"[listen NAME]\nendpoint = 127.0.0.1:{free_port()}\n[listen uNAME]\n"
        text = f"{_LOG}{listeners}endpoint = unix:{path}".replace
        port, *_ = await self.run_service(text("NAME", "a"))
        inodes = self.inodes()
        await self.change(f"{text('NAME', 'b')}:mode=600\n")
        self.assertEqual(self.inodes(), inodes)
        await (await greeted(self, port, b"x")).is_lost()
        await self.until_logged("listener=b ")
        await self.change(LISTEN)
        self.assertFalse(path.exists())

    async def test_of_twisted(self) -> None:
        """A port that Twisted opens is served from the start, and stays open for a listener of another name; new ones are opened first."""
        pem = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        port, other = free_port(), free_port()
        ssl = f"ssl:PORT:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
        text = f"{_LOG}[listen NAME]\nendpoint = {ssl.replace('PORT', str(port))}\n"
        for begin, name in ((self.run_service, "a"), (self.change, "b")):
            await begin(text.replace("NAME", name))
            peer = SecurePeer((client_context(None), None))
            await (await connect_tls(self, port, peer)).ready()
            peer.send(b"x")
            await peer.has_close_notify()
            await self.gone(peer)
            await self.until_logged(f"listener={name} ")
        more = f"{LISTEN}[listen c]\nendpoint = {ssl.replace('PORT', str(other))}\n"
        found = await self.change_refused(more.replace("a.pem", "b.pem"))
        self.assertIn("[listen c] endpoint", found)
        await self.change(more)
        peer = SecurePeer((client_context(None), None))
        await (await connect_tls(self, other, peer)).ready()

    async def test_access_log(self) -> None:
        """The access log goes elsewhere, also for connections of older rules; one that cannot be opened is refused."""
        listen = f"{LISTEN}detect_timeout = 1h\n"
        [port] = await self.run_service(_LOG + listen)
        client = await connect(self, port)
        await self.connections(1)
        missing = self.folder / "missing" / "log"
        told = await self.change_refused(f"[txmux]\naccess_log = {missing}\n{listen}")
        self.assertIn("access_log: ", told)
        other = self.folder / "other.log"
        await self.change(f"[txmux]\naccess_log = {other}\n{listen}")
        client.send(b"x")
        await client.is_lost()
        await self.connections(0)
        self.assertEqual((self.log.read_text(), other.read_text().count("\n")), ("", 1))

    async def test_unusable_by_now(self) -> None:
        """Files that the service writes, and cannot any more, refuse nobody's changes, except new names that the operator wants there."""
        acme, logs = self.folder / "acme", self.folder / "logs"
        logs.mkdir()
        (self.folder / "d").mkdir()
        site = _SITE.format
        text = (
            f"[txmux]\nacme = https://127.0.0.1:1/dir\nacme_folder = {acme}\naccess_log = {logs}/log\n"
            f"include = d/*.ini\n{LISTEN}routes_from = *\n{site('a', 'close')}"
        )
        await self.run_service(text)
        acme.chmod(0o777)
        logs.rename(self.folder / "old")
        (self.folder / "d/unit.ini").write_text(site("b", "127.0.0.1:1"))
        told = await self.change(text.replace("close", "127.0.0.1:1"))
        self.assertIn("1 route new (b), 1 changed (a); ", told)
        self.assertIn(f"[route b] terminate_tls: cannot read '{acme}/b.example.pem'", told)
        items = [item.text for item in self.running.control.parts["acme"].troubles()]
        self.assertIn(f"cannot write '{acme}': others may write to it, too", items[0])
        found = [text[:7] for text in items[1:] if "clients are refused" in text]
        self.assertEqual(found, ["b.examp"])
        told = await self.change_refused(text + site("c", "close"))
        self.assertIn(f"[txmux] acme_folder: cannot write '{acme}': others may write", told)

    async def test_unusable_from_the_start(self) -> None:
        """A folder that only other owners need refuses neither a start nor their first names."""
        acme = self.folder / "acme"
        acme.mkdir()
        acme.chmod(0o777)
        unit = self.folder / "unit.ini"
        unit.write_text(_SITE.format("a", "close"))
        text = f"[txmux]\nacme = https://127.0.0.1:1/dir\nacme_folder = {acme}\ninclude = u*.ini\n"
        text += f"{LISTEN}routes_from = *\n"
        await self.run_service(text)
        for sites in (_SITE.format("b", "close"), ""):
            items = str([item.text for item in self.running.control.parts["acme"].troubles()])
            told = "others may write to it, too.*(a|b).example .*clients are refused"
            self.assertRegex(items, told)
            unit.write_text(sites)
            await self.change(text)
        unit.write_text(_SITE.format("c", "close"))
        await self.change(text)
        told = await self.change_refused(text + _SITE.format("d", "close"))
        self.assertIn(f"[txmux] acme_folder: cannot write '{acme}': others may write", told)

    async def test_rotated(self) -> None:
        """SIGHUP opens the access log again, whether the rules can be read or not."""
        [port] = await self.run_service(_LOG + LISTEN)
        for text in (self.file.read_text(), "[nonsense"):
            self.file.write_text(text)
            before = self.log.read_text()
            moved = self.log.rename(self.folder / "moved.log")
            last = self.running.control.last_reload
            os.kill(os.getpid(), signal.SIGHUP)
            while self.running.control.last_reload is last:
                await deferLater(reactor, 0)
            await self.until_logged()
            await (await greeted(self, port, b"x")).is_lost()
            await self.until_logged("\n")
            lines = self.log.read_text().count("\n")
            self.assertEqual((moved.read_text(), lines), (before, 1))

    async def test_certificates_that_end(self) -> None:
        """The start and each reload log them once, and the status has them."""
        own = authority().issue("a.example", ends=-1).write(self.folder / "a.pem", key=True)
        client = authority().issue("c.example", ends=3.5).write(self.folder / "c.pem", key=True)
        rules = (
            f"{LISTEN}[route t]\nmatch = tls\nterminate_tls = {own}\nbackend = web\n"
            f"[backend web]\nserver = 127.0.0.1:1\ntls = yes\ntls_name = web\ntls_client_certificate = {client}\n"
        )
        with capturedLogs() as events:
            await self.run_service(rules)
            self.assertEqual(await self.change(rules), "nothing changed")
        lines = [one for event in events if "certificate '" in (one := formatEvent(event) or "")]
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[:2], lines[2:])
        message = f":5: warning: [route t] terminate_tls: the certificate '{own}' ended on"
        self.assertIn(message, lines[0])
        self.assertIn(f"tls_client_certificate: the certificate '{client}' ends in 3 d", lines[1])
        attention = (await self.running.control.status())["attention"]
        found = [one for one in attention if one["what"] == "certificates"]
        self.assertEqual([one["level"] for one in found], ["critical", "warning"])
        told = [one["text"] for one in found]
        self.assertIn(f"the certificate {own} of route t ended on ", told[0])
        self.assertIn(f"the certificate {client} of backend web ends in 3 days, on ", told[1])

    async def test_certificates(self) -> None:
        """Certificates are read again. What is in use is kept where it cannot be used, by workers that start then, too."""
        first, second = (authority().issue("a.example") for _ in range(2))
        pem = first.write(self.folder / "a.pem", key=True)
        ca = authority().write(self.folder / "ca.pem")
        trusted = authority().write(self.folder / "trusted.pem")
        route = f"[route t]\nmatch = tls\nterminate_tls = {pem}\nbackend = close\n"
        keys = f"tls = yes\ntls_name = b\ntls_ca = {trusted}\n"
        backend = f"[backend b]\nserver = 127.0.0.1:1\n{keys}"
        rules = LISTEN + route + backend
        [port] = await self.run_service(rules)

        async def shown() -> int:
            peer = SecurePeer((client_context(ca), "a.example"))
            await (await connect_tls(self, port, peer)).ready()
            certificate = peer.tls.getpeercert()
            assert certificate is not None
            await self.gone(peer)
            return int(str(certificate["serialNumber"]), 16)

        async def troubles() -> list[str]:
            items = (await self.running.control.status())["attention"]
            return [item["text"] for item in items]

        before = await shown()
        until = utc_time(first.certificate.not_valid_after_utc.timestamp())
        pem.write_text("nonsense")
        trusted.unlink()
        kept = [
            f"[route t] terminate_tls: '{pem}': no certificate in it; what is in use is kept, until {until}",
            f"[backend b] tls_ca: cannot read '{trusted}': No such file or directory; what is in use is kept",
        ]
        other = "[route other]\nmatch = http\nbackend = close\n"
        with capturedLogs() as events:
            told = await self.change(rules + other)
        self.assertEqual(told.split("; ", 1), ["1 route new (other)", "; ".join(kept)])
        logged = [formatEvent(event) for event in events]
        self.assertEqual([line for line in logged if line in kept], kept)
        self.assertCountEqual([text for text in await troubles() if text in kept], kept)
        self.assertEqual(await shown(), before)
        (worker,) = self.supervisor.pool.workers
        os.kill(worker.pid, signal.SIGKILL)
        await self.until(lambda: not worker.ready)
        self.assertEqual(await shown(), before)
        while {text for text in await troubles() if text in kept} != {*kept}:
            await deferLater(reactor, 0.05)  # the worker looks at the certificate in a thread
        # What these files were not in use for is refused.
        for bad in (
            rules.replace("[route t]", "[route u]"),
            rules.replace(f"= {pem}", f"= {ca} {pem}"),
            rules.replace("tls_name = b", "tls_name = c"),
        ):
            self.assertIn("]", await self.change_refused(bad))
        second.write(self.folder / "a.pem", key=True)
        authority().write(trusted)
        self.assertEqual(await self.change(rules + other), "nothing changed")
        self.assertNotEqual(await shown(), before)
        self.assertEqual([text for text in await troubles() if text in kept], [])
        pem.write_text("nonsense")
        while not any("no certificate in it" in text for text in await troubles()):
            await deferLater(reactor, 0.05)
