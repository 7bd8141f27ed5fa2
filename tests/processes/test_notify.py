"""What systemd is told, and keeps."""

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE, eventually, has_ipv6
from tests.processes.manager import Manager
from tests.processes.running import limiting
from tests.support.kit import RULES, Service, WorkersTestCase, make_folder, reactor
from tests.support.proc import family_of, is_gone, listening_inode
from txmux.processes.supervisor.notify import Notifier, _name, sockets_from_systemd


class NotifierTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.listening = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.listening.settimeout(PATIENCE)
        self.address = f"txmux-test-{os.urandom(8).hex()}"
        self.listening.bind(f"\0{self.address}")

    def notifier(self, **more: str) -> Notifier:
        return Notifier({"NOTIFY_SOCKET": f"@{self.address}", **more}, self.clock)

    def told(self) -> str:
        return self.listening.recv(65536).decode()

    def assert_silent(self) -> None:
        self.listening.settimeout(0)
        self.assertRaises(BlockingIOError, self.listening.recv, 1)
        self.listening.settimeout(PATIENCE)

    def test_states(self) -> None:
        """Each state has its message; a status is one line."""
        notifier = self.notifier()
        notifier.ready("serving;\nall of it")
        self.assertEqual(self.told(), "READY=1\nSTATUS=serving; all of it")
        notifier.ready("€" * 5000)  # systemd would ignore all of it
        self.assertEqual(self.told(), f"READY=1\nSTATUS={'€' * 682}")
        notifier.ready("/d/\udcff.ini is not taken")  # as a file's name may be
        self.assertEqual(self.told(), "READY=1\nSTATUS=/d/\\udcff.ini is not taken")
        notifier.ready("serving", is_new_main=True)
        self.assertEqual(self.told(), f"MAINPID={os.getpid()}\nREADY=1\nSTATUS=serving")
        before = time.monotonic()
        notifier.reloading()
        first, second = self.told().split("\n")
        self.assertEqual(first, "RELOADING=1")
        moment = int(second.removeprefix("MONOTONIC_USEC=")) / 1e6
        self.assertTrue(before - 0.001 <= moment <= time.monotonic() + 0.001)
        notifier.stopping()
        self.assertEqual(self.told(), "STOPPING=1\nSTATUS=stopping: connections finish")

    def test_watchdog(self) -> None:
        """The watchdog is told ten times in its time, as long as all is well, and until the end."""
        notifier = self.notifier(WATCHDOG_USEC="30000000")
        well = [True]
        notifier.watch(lambda: well[0])
        self.assertEqual(self.told(), "WATCHDOG=1")
        self.clock.advance(2.9)
        self.assert_silent()
        self.clock.advance(0.1)
        self.assertEqual(self.told(), "WATCHDOG=1")
        well[0] = False
        self.clock.advance(3)
        self.assert_silent()
        well[0] = True
        self.clock.advance(3)
        self.assertEqual(self.told(), "WATCHDOG=1")
        notifier.stop()
        self.clock.advance(3)
        self.assert_silent()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_keeps(self) -> None:
        """Sockets are kept once each, and given up when they are gone; those of systemd itself are left out."""
        notifier = self.notifier(FDSTORE="7")
        self.assertTrue(notifier.keeps)
        one, two = socket.socket(), socket.socket()
        with one, two:
            notifier.store({"tcp:[::]:443": one, "systemd:0:": two})
            packet, descriptors, _, _ = socket.recv_fds(self.listening, 65536, 5)
            self.assertEqual(packet, b"FDSTORE=1\nFDNAME=txmux.tcp%3A[%3A%3A]%3A443")
            (kept,) = descriptors
            self.assertTrue(os.path.sameopenfile(kept, one.fileno()))
            os.close(kept)
            notifier.store({"tcp:[::]:443": one})
            self.assert_silent()
            notifier.taken(["unix:/run/x"], ["unix:/run/y"])
            notifier.store({"unix:/" + "x" * 300: two})
            removed = {self.told(), self.told(), self.told()}
        self.assertEqual(
            removed,
            {
                "FDSTOREREMOVE=1\nFDNAME=txmux.tcp%3A[%3A%3A]%3A443",
                "FDSTOREREMOVE=1\nFDNAME=txmux.unix%3A/run/x",
                "FDSTOREREMOVE=1\nFDNAME=txmux.unix%3A/run/y",
            },
        )
        self.assert_silent()

    def fill(self) -> int:
        """Send until the system takes no more, and return how often; it bounds what each socket sends, too."""
        for sent in range(10**6):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)
                sender.connect(f"\0{self.address}")
                try:
                    sender.send(b"x")
                except BlockingIOError:
                    return sent
        raise AssertionError

    def test_nobody_reads(self) -> None:
        """Nothing waits for systemd, which it would for ever; what it does not take is sent later, but pings of the watchdog are left out."""
        notifier = self.notifier(WATCHDOG_USEC="1000000")
        with socket.socket() as opened:
            count = self.fill()
            notifier.store({"tcp:x": opened})
            notifier.ready("serving")
            notifier.reloading()
            notifier.watch(lambda: True)
            self.clock.advance(10)
            for _ in range(count):
                self.assertEqual(self.told(), "x")
            inode = os.fstat(opened.fileno()).st_ino
        told = Deferred.fromCoroutine(notifier.until_sent())
        self.assertNoResult(told)
        self.clock.advance(1)
        self.successResultOf(told)
        heard = [socket.recv_fds(self.listening, 65536, 5)[:2] for _ in range(3)]
        kept = [descriptor for _, descriptors in heard for descriptor in descriptors]
        self.assertEqual([os.fstat(one).st_ino for one in kept], [inode])
        os.close(*kept)
        (stored,) = [at for at, (_, descriptors) in enumerate(heard) if descriptors]
        self.assertEqual(heard.pop(stored)[0], b"FDSTORE=1\nFDNAME=txmux.tcp%3Ax")
        (ready, _), (reloading, _) = heard
        self.assertEqual(ready, b"READY=1\nSTATUS=serving")
        self.assertTrue(reloading.startswith(b"RELOADING=1"))
        self.assertEqual(self.told(), "WATCHDOG=1")
        notifier.stop()
        self.assert_silent()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_descriptors_that_systemd_does_not_take_hold_nothing_else_up(self) -> None:
        """For one user, the system bounds how many are on their way (unix(7), ETOOMANYREFS); what is left at the end is said."""
        notifier = self.notifier(WATCHDOG_USEC="30000000")
        send = socket.send_fds

        def refuse(sender: socket.socket, data: list[bytes], descriptors: list[int]) -> int:
            if descriptors:
                raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
            return send(sender, data, descriptors)

        self.patch(socket, "send_fds", refuse)
        notifier.store({"tcp:x": self.listening})
        notifier.store({})  # and what is removed stays behind what is stored
        notifier.ready("serving", is_new_main=True)
        self.assertEqual(self.told(), f"MAINPID={os.getpid()}\nREADY=1\nSTATUS=serving")
        notifier.watch(lambda: True)
        self.assertEqual(self.told(), "WATCHDOG=1")
        ended = Deferred.fromCoroutine(notifier.end())
        with capturedLogs() as events:
            self.clock.pump([0.05] * 101)
        self.successResultOf(ended)
        self.assert_silent()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        left = [event["text"].partition("\n")[0] for event in events]
        self.assertEqual(left, ["FDSTORE=1", "FDSTOREREMOVE=1"])

    def test_store_is_tried_again_where_there_was_no_descriptor(self) -> None:
        notifier = self.notifier()
        self.fill()
        with mock.patch.object(os, "dup", side_effect=OSError(errno.EMFILE, "no")):
            notifier.store({"tcp:x": self.listening})
        while select.select([self.listening], [], [], 0)[0]:
            self.told()
        notifier.store({"tcp:x": self.listening})
        packet, [kept], _, _ = socket.recv_fds(self.listening, 65536, 5)
        self.assertEqual(packet, b"FDSTORE=1\nFDNAME=txmux.tcp%3Ax")
        os.close(kept)

    def test_nothing_to_do(self) -> None:
        # Without systemd nothing is told; one that does not listen is a warning, and no more.
        silent = Notifier({}, self.clock)
        silent.ready("x")
        silent.store({"tcp:x": self.listening})
        self.assertFalse(silent.keeps)
        Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}, self.clock).ready("x")
        # Nothing runs without a watchdog.
        for notifier in (self.notifier(), Notifier({"WATCHDOG_USEC": "5"}, self.clock)):
            notifier.watch(lambda: True)
            notifier.stop()
        self.assert_silent()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # Descriptors that were passed to another process are left alone.
        for environment in ({"LISTEN_PID": "1", "LISTEN_FDNAMES": "txmux.x:y"}, {}):
            self.assertEqual(sockets_from_systemd(reactor, environment), ({}, {}, []))

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
    def test_names(self, key: str) -> None:
        """Any key is a name that systemd takes: printable ASCII without blanks and colons."""
        name = _name(key)
        self.assertTrue(all("!" <= character <= "~" and character != ":" for character in name))


@pytest.mark.by_turns(each=True)
class ServiceUnderSystemdTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.own_folder = make_folder(self)
        self.manager = self.enterContext(contextlib.closing(Manager(self.own_folder)))

    def service(self, settings: str, rules: str = RULES, **more: str) -> Service:
        mux = Service(self.folder, rules, settings, before=self.manager.environment(**more))
        self.addCleanup(mux.child.end)
        return mux

    def test_ready_reload_upgrade_and_stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.bind(("127.0.0.1", 0))
            port = opened.getsockname()[1]
            self.manager.store["a"] = os.dup(opened.fileno())
        passed = f"{RULES}[listen u]\nendpoint = udp:127.0.0.1:{port}\n"
        mux = self.own(self.service("workers = 2", passed, WATCHDOG_USEC="3000000"))
        del mux.ports["u"]
        self.manager.wait_for(READY="1", STATUS="serving")
        self.be_closed(mux)
        mux.child.process.send_signal(signal.SIGHUP)
        self.assertIn("MONOTONIC_USEC", self.manager.wait_for(RELOADING="1"))
        self.assertIn("STATUS", self.manager.wait_for(READY="1"))
        rules = mux.log.with_name("rules.ini")
        text = rules.read_text()
        rules.write_text(f"nonsense\n{text}")
        mux.child.process.send_signal(signal.SIGHUP)
        self.manager.wait_for(RELOADING="1")
        said = self.manager.wait_for(READY="1")["STATUS"]
        self.assertTrue(said.startswith(f"serving; rules not reloaded: {rules}:1: "), said)
        # A new process becomes the main one.
        rules.write_text(text)
        mux.upgrade()
        self.assertEqual(self.manager.wait_for(READY="1")["MAINPID"], str(mux.pid))
        self.manager.wait_for(WATCHDOG="1")
        self.assertEqual([told for told in self.manager.told if "STOPPING" in told], [])
        self.assertEqual(len(self.manager.store), 2)
        # A socket of systemd for datagrams can be left out, and used again.
        for change in (("udp:127.0.0.1", "udp:127.0.0.2"), ("udp:127.0.0.2", "udp:127.0.0.1")):
            self.assertIn("rules reloaded", mux.reload(change))
        mux.stop()
        self.manager.wait_for(STOPPING="1")

    def test_stop_kills_a_new_process_that_has_become_the_main_one(self) -> None:
        """Otherwise, systemd would take the service for dead, and end the clients that have time to finish."""
        more = limiting({"processes.upgrade.upgrade._ACCEPTS": 3600})
        self.late("upgrade.upgrades.Upgrades._serve", more, after=True)
        mux = self.service("")
        self.manager.wait_for(READY="1")
        mux.ask()
        self.assertNotEqual(self.manager.wait_for(READY="1")["MAINPID"], str(mux.pid))
        mux.terminate()
        self.assertEqual(self.manager.wait_for(MAINPID=str(mux.pid))["STOPPING"], "1")
        mux.assert_stopped()

    def test_by_address_or_number_without_their_names(self) -> None:
        """The names are optional (sd_listen_fds(3)): `systemd-socket-activate` gives none. A client of IPv4 is known as such by a socket for both."""
        for host, endpoint in (
            ("127.0.0.1", "127.0.0.1:{port}"), ("::", ":{port}"), ("::1", "systemd:domain=INET:index=1"),
            ("::", "systemd:domain=INET6:index=1"),
        ):  # fmt: skip
            if ":" in host and not has_ipv6():
                continue
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with (
                socket.create_server(
                    (host, 0), family=family, dualstack_ipv6=host == "::"
                ) as opened,
                socket.create_server(("127.0.0.1", 0)) as other,
            ):
                port = opened.getsockname()[1]
                self.manager.store.update(b=os.dup(other.fileno()), a=os.dup(opened.fileno()))
                # As of `OpenFile=` and `ListenFIFO=`.
                self.manager.store["file"] = os.open(os.devnull, os.O_RDONLY)
                rules = RULES.replace("127.0.0.1:0", endpoint.format(port=port))
                before = (*self.manager.environment(), "/usr/bin/env", "-u", "LISTEN_FDNAMES")
                mux = self.own(Service(self.folder, rules, before=before))
                self.assertEqual(mux.port, port)  # where this process listens, too
                for address in ("127.0.0.1", "::1") if host == "::" else (host,):
                    with socket.create_connection((address, port), 60) as client:
                        client.sendall(b"x")
                        self.assertEqual(client.recv(1), b"")
                    seen, _, _ = mux.take_one()["client"].rpartition(":")
                    self.assertEqual(seen.strip("[]"), address)
                mux.stop()
                while self.manager.store:
                    os.close(self.manager.store.popitem()[1])

    def test_another_address_than_that_of_the_rules(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as opened:
            port = opened.getsockname()[1]
            self.manager.store["a"] = os.dup(opened.fileno())
        rules = self.own_folder / "rules.ini"
        rules.write_text(RULES.replace("127.0.0.1:0", f"0.0.0.0:{port}"))
        command = (*self.manager.environment(), sys.executable, "-m", "txmux", "run", str(rules))
        found = subprocess.run(command, stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
        said = f"systemd has passed a socket at 127.0.0.1:{port}, which overlaps it: write that"
        self.assertIn(said, found.stderr.decode())

    def test_sockets_survive_a_crash_and_a_restart(self) -> None:
        """Who has come in between is served: by streams and datagrams, and at the socket at which the service is asked."""
        path, admin = self.own_folder / "x.sock", self.own_folder / "admin.sock"
        server = self.enterContext(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        server.settimeout(PATIENCE)
        server.bind(("127.0.0.1", 0))
        rules = (
            f"{RULES}    unix:{path}\n[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = silent\n"
            f"[backend silent]\nserver = udp:127.0.0.1:{server.getsockname()[1]}\nunanswered_timeout = 1s\n"
        )
        settings = f"workers = 2\nadmin = unix:{admin}"
        mux = self.service(settings, rules)
        ports, inode = mux.ports, listening_inode(mux.ports["public"])
        for end in (signal.SIGKILL, signal.SIGTERM):
            self.manager.wait_for(READY="1")
            self.end(mux, end)
            with contextlib.ExitStack() as opened:
                clients = []
                for place in (("127.0.0.1", ports["public"]), str(path), str(admin)):
                    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
                    clients.append(client := opened.enter_context(socket.socket(family)))
                    client.settimeout(PATIENCE)
                    client.connect(place)
                    client.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                by_udp = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                by_udp.sendto(end.name.encode(), ("127.0.0.1", ports["u"]))
                mux = self.service(settings, rules)
                self.assertEqual((mux.ports, listening_inode(ports["public"])), (ports, inode))
                *others, asking = clients
                self.assertEqual([one.recv(1) for one in others], [b""] * 2)
                self.assertIn(b" 200 OK\r\n", asking.recv(1000))
                self.assertEqual(server.recv(9), end.name.encode())
        self.manager.wait_for(READY="1")
        self.assertEqual(len(self.manager.store), 4)
        mux.stop()
        self.assertFalse(any("FDSTOREREMOVE" in told for told in self.manager.told))

    def end(self, mux: Service, number: signal.Signals) -> None:
        pids = family_of(mux.child.pid)[1:]
        mux.child.process.send_signal(number)
        mux.child.process.wait(PATIENCE)
        eventually(lambda: all(map(is_gone, pids)), "all have ended")

    def test_store_of_changed_rules(self) -> None:
        """What the rules do not name any more is given up; a UNIX socket whose file is gone is made anew."""
        path, other = self.own_folder / "x.sock", self.own_folder / "y.sock"
        mux = self.service("", f"{RULES}    unix:{path}\n    unix:{other}\n")
        self.manager.wait_for(READY="1")
        self.assertEqual(len(self.manager.store), 3)
        self.end(mux, signal.SIGKILL)
        path.unlink()
        mux = self.service("", f"[listen new]\nendpoint = 127.0.0.1:0\n    unix:{path}\n")
        self.manager.wait_for(READY="1")
        self.assertEqual(len(self.manager.store), 2)
        self.be_closed_at(path)
        self.assertEqual(self.manager.doubled, [])
        self.assertFalse(other.exists())
        # An address that becomes a wider one, and one with Multipath TCP, though systemd still has the old socket.
        self.end(mux, signal.SIGTERM)
        mux = self.service("", RULES)
        port = mux.port
        for endpoint in (f"0.0.0.0:{port}", f"0.0.0.0:{port}\nmptcp = yes", f"127.0.0.1:{port}"):
            self.manager.wait_for(READY="1")
            self.end(mux, signal.SIGTERM)
            mux = self.service("", RULES.replace("127.0.0.1:0", endpoint))
            self.assertEqual(mux.port, port)
        mux.stop()
