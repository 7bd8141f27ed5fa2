"""Flows of UDP while a service stops, and those that somebody ends."""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Sequence

import pytest

from tests.interop.datagrams.program import Responder
from tests.support.kit import PATIENCE, Service, WorkersTestCase, eventually, free_port
from tests.support.proc import halted, is_gone, open_files, serves

pytestmark = pytest.mark.by_turns(each=True)
_RULES = "[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = SERVER\n"


class _Client:
    def __init__(self, test: WorkersTestCase, port: int) -> None:
        self._socket = test.enterContext(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0.2)
        self._count = 0
        self.name = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def is_answered(self) -> bool:
        self._count += 1
        data = b"%d" % self._count
        self._socket.send(data)
        with contextlib.suppress(TimeoutError):
            while (heard := self._socket.recv(100)) != data:
                assert int(heard) < self._count
            return True
        return False


class StopTest(WorkersTestCase):
    def flow(self, mux: Service) -> _Client:
        client = _Client(self, mux.port)
        eventually(client.is_answered, "the flow is answered")
        return client

    def test_close_listener_and_stop(self) -> None:
        # Those that a filter names end, in whichever worker they are; the others go on, and their clients may begin anew.
        rules = _RULES.replace("SERVER", f"udp:127.0.0.1:{self.own(Responder(0, bytes)).port}")
        mux = self.upgrading(rules, "workers = 2\ndrain_timeout = 10m", admin=True)
        clients = [self.flow(mux) for _ in range(3)]
        listed = mux.api("connections")
        self.assertEqual({one["client"] for one in listed}, {client.name for client in clients})
        chosen = next(one["id"] for one in listed if one["client"] == clients[0].name)
        mux.api(f"connections/{chosen}/close", {})
        self.assertEqual(mux.take_one()["reason"], "killed")
        self.assertEqual(mux.api("connections/close", {"listener": "u"})["closed"], 2)
        self.assertEqual({line["reason"] for line in mux.take(2)}, {"killed"})
        self.assertEqual(mux.api("connections"), [])
        eventually(clients[0].is_answered, "it begins anew")
        # A listener that accepts nobody begins no flow, and those that there are go on.
        mux.api("listeners/u", {"accepting": False})
        other = _Client(self, mux.port)
        eventually(lambda: not _Client(self, mux.port).is_answered(), "no flow begins")
        self.assertFalse(other.is_answered())
        eventually(clients[0].is_answered, "the flow goes on")
        mux.api("listeners/u", {"accepting": True})
        eventually(other.is_answered, "flows begin again")
        mux.take(mux.api("connections/close", {"listener": "u"})["closed"])
        # Flows go on while the service stops, none begins, and a second signal ends all at once.
        client = self.flow(mux)
        mux.terminate()
        mux.child.wait_for("for up to 600 s")
        eventually(client.is_answered, "the flow goes on")
        self.assertFalse(_Client(self, mux.port).is_answered())
        eventually(client.is_answered, "the flow goes on")
        os.kill(mux.pid, signal.SIGTERM)
        mux.assert_stopped()
        line = mux.take_one()
        self.assertEqual((line["client"], line["reason"]), (client.name, "drained"))


class UpgradeTest(WorkersTestCase):
    def setUp(self) -> None:
        self.server, self.near, self.far = (self.end() for _ in range(3))

    def end(self) -> socket.socket:
        end = self.enterContext(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        end.bind(("127.0.0.1", 0))
        end.settimeout(PATIENCE)
        return end

    def begin(self, rules: str, settings: str = "", *, admin: bool = False) -> Service:
        rules = rules.replace("SERVER", f"udp:127.0.0.1:{self.server.getsockname()[1]}")
        drain = "" if "drain_timeout" in settings else "drain_timeout = 100ms"
        mux = self.upgrading(rules, f"{settings}\n{drain}", admin=admin)
        (port,) = re.findall(r"listening on udp:127.0.0.1:(\d+)", mux.output)
        self.to = "127.0.0.1", int(port)
        return mux

    def test_removed(self) -> None:
        """A flow of a listener that is removed goes on in the old process until that has to end, and both say so."""
        mux, _ = self.without_listener("drain_timeout = 10m")
        old = mux.replace()
        mux.child.wait_for("flows that are not taken over: 1; ")
        mux.child.wait_for("draining connections: 1, for up to 600 s")
        self.assert_goes_on(b"more")

        def is_ended() -> bool:
            if not is_gone(mux.pid):
                mux.terminate()  # the second one that is noticed ends what has not finished
            return all(map(is_gone, old))

        eventually(is_ended, "the old workers have ended")
        self.assertEqual(mux.take_one()["datagrams_in"], 2)

    def without_listener(self, settings: str) -> tuple[Service, str]:
        """Begin a service with a flow of a listener that is removed then, and return its rules of before, too."""
        endpoint = f"udp:127.0.0.1:{free_port()}"
        mux = self.begin(
            f"[listen t]\nendpoint = 127.0.0.1:0\n[listen u]\nendpoint = {endpoint}\ndefault = SERVER\n",
            settings,
            admin=True,
        )
        self.near.sendto(b"first", self.to)
        _, self.seen = self.server.recvfrom(65535)
        text = mux.file.read_text()
        mux.file.write_text(text.partition("[listen u]")[0])
        self.assertIn("listener u closed", mux.reload())
        return mux, text

    def assert_goes_on(self, data: bytes) -> None:
        self.near.sendto(data, self.to)
        self.assertEqual(self.server.recvfrom(65535), (data, self.seen))
        self.server.sendto(b"answer", self.seen)
        self.assertEqual(self.near.recv(65535), b"answer")

    def test_back(self) -> None:
        """A listener can be had again while a flow of it is in a worker that has been replaced: it goes on, and others begin."""
        for how in ("upgrade", "two upgrades", "signal"):
            mux, text = self.without_listener("workers = 2\ndrain_timeout = 10m")
            if how == "signal":
                [reader] = [
                    row["pid"] for row in mux.api("status")["workers"] if row["connections"]
                ]
                os.kill(reader, signal.SIGTERM)
                mux.child.wait_for("was asked to end; worker 3 takes its place")
            else:
                mux.replace()
                mux.child.wait_for("flows that are not taken over: 1; ")
            if how == "two upgrades":
                mux.replace()
            self.assert_goes_on(b"more")
            mux.file.write_text(text)
            self.assertIn("listener u opened", mux.reload())
            for number in range(20):
                self.assert_goes_on(b"%d" % number)
            self.far.sendto(b"other", self.to)
            heard, seen = self.server.recvfrom(65535)
            self.assertEqual(heard, b"other")
            self.assertNotEqual(seen, self.seen)
            self.assertEqual(mux.api("connections/close", {"listener": "u"})["closed"], 2)
            self.assertEqual(sorted(line["datagrams_in"] for line in mux.take(2)), [1, 22])
            mux.stop()

    def ports(self, clients: Sequence[socket.socket]) -> list[object]:
        """Have the server hear and answer each client, and give the ports from which it has seen them."""
        found = list[object]()
        for client in clients:
            client.sendto(b"asked", self.to)
            data, seen = self.server.recvfrom(9)
            self.server.sendto(b"answered", seen)
            self.assertEqual((data, client.recv(9)), (b"asked", b"answered"))
            found.append(seen)
        return found

    def test_another_reader(self) -> None:
        """A worker that reads datagrams is killed: another one reads at once. Its flows go to the reader of the new service, whichever each is."""
        mux = self.begin(_RULES, "workers = 2")
        clients = [self.end() for _ in range(20)]
        before = self.ports(clients)
        mux.kill(self.reader(mux))
        after = self.ports(clients)
        self.assertEqual({*before} & {*after}, set())
        mux.upgrade()
        self.assertEqual(self.ports(clients), after)

    def reader(self, mux: Service) -> int:
        """Return which worker has the flows: it has a socket for each."""
        return max(mux.workers, key=lambda pid: len(open_files(pid)))

    def test_former_reader(self) -> None:
        """A worker that has read datagrams before, and stays for a connection, does not keep flows from going on after an upgrade."""
        mux = self.begin(
            f"{_RULES}[listen t]\nendpoint = 127.0.0.1:0\ndetect_timeout = 10m\n"
            "[route s]\nmatch = ssh\nbackend = close\nunder = t\n",
            "workers = 2\ndrain_timeout = 1s",
        )
        clients = [self.end() for _ in range(200)]
        before = self.ports(clients)
        workers, reader = mux.workers, self.reader(mux)
        with halted({*workers} - {reader}):
            undecided = self.enterContext(socket.create_connection(("127.0.0.1", mux.ports["t"])))
            undecided.sendall(b"SSH")
            eventually(lambda: serves(reader, undecided), "the reader accepts a client")
        os.kill(reader, signal.SIGTERM)
        eventually(lambda: len(open_files(reader)) < len(clients), "its flows have moved")
        self.assertIn(reader, mux.workers)
        self.assertEqual(self.ports(clients), before)
        mux.upgrade()
        self.assertEqual(self.ports(clients), before)
        mux.stop()
        self.assertEqual(len(mux.take(200, "u")), 200)
