import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from unittest import SkipTest

import attrs
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.growth import AT_ALL, growth
from tests.support.kit import Namespace, has_ipv6, make_folder, reactor
from tests.support.ports import free_port, free_ports
from txmux.errors import ListenError
from txmux.net.sockets.plainsocket import has_interface
from txmux.rules.model import Listener
from txmux.rules.reading.parser import parse
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.store import ListeningSockets


def inodes(sockets: Mapping[str, socket.socket]) -> dict[str, int]:
    return {key: os.fstat(opened.fileno()).st_ino for key, opened in sockets.items()}


def is_refused(name: object) -> bool:
    with socket.socket() as client:
        return bool(client.connect_ex(name))  # type: ignore[arg-type]


_WITH_PASSED = """
from twisted.internet import reactor
from txmux import Listener
from txmux.serving.store import ListeningSockets
mine, its, other = [Listener("x", (f"{end}",)) for end in 2 * ["systemd:domain=INET:index=0"] + ["127.0.0.1:0"]]
store = ListeningSockets(reactor)
store.open([mine])
print(*(one.getblocking() for one in store.sockets().values()))
print(*([problem.message for problem in store.unavailable([one], [mine])] for one in (its, other)))
"""


class StoreTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.store = self.enterContext(contextlib.closing(ListeningSockets(reactor)))

    def listener(self, *endpoints: str, name: str = "x") -> Listener:
        return Listener(name, endpoints)

    def test_overlap_of_all_addresses_with_one_is_refused(self) -> None:
        """Nor does a socket for both families stay where IPv6 alone is wanted, which would let IPv4 clients in."""
        for there, asked in (
            ("127.0.0.1:{}", ":{}"), ("127.0.0.1:{}", "0.0.0.0:{}"), (":{}", "127.0.0.1:{}"),
            ("0.0.0.0:{}", "127.0.0.1:{}"), (":{}", "[::]:{}"),
        ):  # fmt: skip
            store, port = ListeningSockets(reactor), free_port()
            self.addCleanup(store.close)
            store.open([self.listener(there.format(port))])
            before = inodes(store.sockets())
            listener = self.listener(asked.format(port))
            problem = str(self.assertRaises(ListenError, store.prepare, [listener]))
            named = f"{asked.format(port)}: {there.format(port)}, where the service listens now"
            self.assertIn(named, problem)
            self.assertIn("restart the service", problem)
            self.assertEqual(inodes(store.sockets()), before)

    def test_end_of_a_socket_is_logged_as_its_beginning(self) -> None:
        kept = self.listener("127.0.0.1:0", name="kept")
        self.store.open([kept, self.listener("127.0.0.1:0", name="moved")])
        former = next(text for key, text in self.store.addresses.items() if "moved" in key)
        with capturedLogs() as events:
            self.store.open([kept, self.listener(f"unix:{self.folder}/a.sock", name="moved")])
        began = f"listening on unix:{self.folder}/a.sock for [listen moved]"
        ended = f"no longer listening on {former} for [listen moved]"
        self.assertEqual([formatEvent(event) for event in events], [began, ended])

    def test_several_ports(self) -> None:
        """Of a line with several ports, those that stay keep their sockets; log and errors name ports together."""
        first, *more, last = free_ports(7, "127.0.0.1")
        with capturedLogs() as events:
            self.store.open([self.listener(f"127.0.0.1:{first}-{more[1]}")])
            before = inodes(self.store.sockets())
            self.store.open([self.listener(f"127.0.0.1:{more[1]}-{more[4]}")])
        after = inodes(self.store.sockets())
        key = f"tcp:127.0.0.1:{more[1]}"
        self.assertEqual((len(after), after[key]), (4, before[key]))
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                f"listening on 127.0.0.1:{first}-{more[1]} for [listen x]",
                f"listening on 127.0.0.1:{more[2]}-{more[4]} for [listen x]",
                f"no longer listening on 127.0.0.1:{first}-{more[0]} for [listen x]",
            ],
        )
        with contextlib.ExitStack() as others:
            for port in (first, more[0], last):
                others.enter_context(socket.create_server(("127.0.0.1", port)))
            same = [self.listener(f"127.0.0.1:{first}-{last}")]
            problem = self.assertRaises(ListenError, self.store.prepare, same)
            [untaken] = self.store.unavailable(same)
        self.assertIn(untaken.message, str(problem))
        self.assertIn(
            f"[listen x] endpoint: cannot listen at 127.0.0.1:{first}-{last}: ports {first}-{more[0]}, {last}: "
            "Address already in use; another program has it",
            str(problem),
        )
        listener = self.listener(f":{more[0]}-{last}")
        problem = self.assertRaises(ListenError, self.store.prepare, [listener])
        self.assertIn(
            f"x] endpoint: cannot listen at :{more[0]}-{last}: ports {more[1]}-{more[4]}: 127.0.0.1:{more[1]}-{more[4]}, where",
            str(problem),
        )
        self.assertEqual(len(str(problem).splitlines()), 1)
        self.assertEqual(inodes(self.store.sockets()), after)

    def test_growth(self) -> None:
        """What ports cost grows no faster than their number."""
        first = free_ports(80, "127.0.0.1")[0]

        def commit(count: int) -> Callable[[], None]:
            listener = self.listener(f"127.0.0.1:{first}-{first + count - 1}")
            return self.store.prepare([listener]).commit

        self.assertLess(growth(commit, 40, 80), AT_ALL)

    def test_several(self) -> None:
        """All that cannot be opened are named, each in a line, and nothing new is left open."""
        self.store.open([self.listener("127.0.0.1:0")])
        before = inodes(self.store.sockets())
        others = [self.enterContext(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        taken = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in others]
        path = f"unix:{self.folder}/new.sock"
        listeners = [self.listener("127.0.0.1:0", taken[0], path), self.listener(taken[1])]
        problem = self.assertRaises(ListenError, self.store.prepare, listeners)
        lines = str(problem).splitlines()
        self.assertEqual(len(lines), 2)
        for line, name in zip(lines, taken, strict=True):
            self.assertIn(f"endpoint: cannot listen at {name}: Address already in use", line)
        self.assertFalse((self.folder / "new.sock").exists())
        self.assertEqual(inodes(self.store.sockets()), before)
        text = f"[listen p]\nendpoint = 127.0.0.1:0\n    {taken[0]}\n"
        [unavailable] = self.store.unavailable(parse(text, "x.ini").listeners)
        self.assertEqual(unavailable.line, 3)

    def test_port_at_which_another_program_listens_by_now(self) -> None:
        number = free_port("127.0.0.1")
        prepared = self.store.prepare([self.listener(f"127.0.0.1:{number}")])
        prepared.commit(listening=False)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", number))
            other.listen()
            error = self.assertRaises(ListenError, self.store.listen)
        self.assertIn(f"127.0.0.1:{number}: ", str(error))

    def test_port_that_another_store_of_the_service_has(self) -> None:
        """Such as that of ``metrics``, which is given up only when a reload succeeds."""
        port, others = free_port(), ListeningSockets(reactor, others=self.store)
        self.addCleanup(others.close)
        others.open([attrs.evolve(self.listener(f"127.0.0.1:{port}"), mptcp=True)])
        told = f"127.0.0.1:{port}, where the service listens now, overlaps it"
        problem = self.assertRaises(ListenError, self.store.prepare, [self.listener(f":{port}")])
        self.assertIn(told, str(problem))
        others.prepare([]).commit()  # as in the new process of an upgrade
        problem = self.assertRaises(ListenError, self.store.prepare, [self.listener(f":{port}")])
        self.assertIn(told, str(problem))

    def test_same_objects(self) -> None:
        """Who names the same address again, in other words and under another name, gets the same socket."""
        port, path = free_port(), self.folder / "x.sock"
        self.store.open([self.listener(f"127.0.0.1:{port}", f"unix:{path}")])
        before = inodes(self.store.sockets())
        self.assertEqual([*self.store.addresses.values()], [f"127.0.0.1:{port}", f"unix:{path}"])
        again = self.listener(f"unix:{path}:mode=600", f"tcp:{port}:interface=127.0.0.1", name="y")
        prepared = self.store.prepare([again])
        self.assertEqual(prepared.opened, [])
        prepared.commit()
        self.assertEqual(self.store.unused, {})
        self.assertEqual(inodes(self.store.sockets()), before)
        shown = self.store.addresses
        self.store.close()
        self.assertEqual(self.store.addresses, shown)  # for the status of a service that stops

    def test_any_port(self) -> None:
        """Each line that asks for any port gets one of its own, and keeps it."""
        listener = self.listener("127.0.0.1:0", "127.0.0.1:0")
        self.store.open([listener])
        before = inodes(self.store.sockets())
        self.assertEqual(len(set(before.values())), 2)
        self.store.open([listener])
        self.assertEqual(inodes(self.store.sockets()), before)

    def test_new_and_gone(self) -> None:
        """New ones are opened first; those that are gone are open, with who waits in them, until they are closed."""
        old, new = self.listener("127.0.0.1:0", name="old"), self.listener("127.0.0.1:0")
        self.store.open([old])
        (name,) = (one.getsockname() for one in self.store.sockets().values())
        prepared = self.store.prepare([new])
        self.assertEqual([place.listener for place in prepared.opened], ["x"])
        self.assertEqual(len(self.store.sockets()), 1)
        prepared.commit()
        (gone,) = self.store.unused.values()
        with socket.create_connection(name) as waiting:
            accepted, peer = gone.accept()
            self.assertEqual(peer, waiting.getsockname())
            accepted.close()
        self.store.close_unused()
        self.assertTrue(is_refused(name))
        (kept,) = self.store.sockets().values()
        self.assertFalse(is_refused(kept.getsockname()))

    def test_what_is_refused_or_abandoned_is_closed(self) -> None:
        port = free_port()
        with self.assertRaisesRegex(ListenError, "named twice"):
            same = f"127.0.0.1:{port}", f"tcp:{port}:interface=127.0.0.1"
            self.store.prepare([self.listener(*same)])
        self.assertTrue(is_refused(("127.0.0.1", port)))
        self.store.prepare([self.listener(f"127.0.0.1:{port}")]).abandon()
        self.assertTrue(is_refused(("127.0.0.1", port)))
        self.assertEqual(self.store.sockets(), {})

    def test_adopted(self) -> None:
        """A socket of another process is taken for its address; one that nobody needs is closed."""
        wanted, unwanted = self.listener("127.0.0.1:0"), self.listener("127.0.0.1:0", name="gone")
        given = {}
        for listener in (wanted, unwanted):
            (place,) = listen_addresses(listener)
            given[place.key] = socket.create_server(("127.0.0.1", 0))
            self.store.adopt(place.key, given[place.key])
        taken, closed = given.values()
        name = closed.getsockname()
        self.store.open([wanted])
        self.assertEqual(list(self.store.sockets().values()), [taken])
        self.assertTrue(is_refused(name))

    def test_adopted_for_a_failure(self) -> None:
        """What was adopted is still there when something else could not be opened."""
        (place,) = listen_addresses(self.listener("127.0.0.1:0"))
        adopted = socket.create_server(("127.0.0.1", 0))
        self.store.adopt(place.key, adopted)
        with self.assertRaises(ListenError):
            self.store.prepare([self.listener("127.0.0.1:0", "192.0.2.1:0")])
        self.assertFalse(is_refused(adopted.getsockname()))

    def test_changed_backlog_holds_for_the_same_socket(self) -> None:
        endpoint = f"tcp:{free_port()}:interface=127.0.0.1:backlog="
        self.store.open([self.listener(f"{endpoint}16")])
        before = inodes(self.store.sockets())
        self.store.open([self.listener(f"{endpoint}1")])
        self.assertEqual(inodes(self.store.sockets()), before)
        (opened,) = self.store.sockets().values()
        # The backlog of a socket that listens is its tcpi_sacked (tcp(7), tcp_get_info).
        info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        self.assertEqual(int.from_bytes(info[28:32], "little"), 1)

    def test_clients_of_a_socket_that_was_shut_down_twice_have_not_ended(self) -> None:
        """As by two workers that have not seen that the other one had: Linux keeps the second time, and clients inherit it."""
        both = self.listener("127.0.0.1:0", name="y")
        listeners = [self.listener("127.0.0.1:0"), attrs.evolve(both, mptcp=True)]
        self.store.open(listeners)
        for listen in (self.store.revive, lambda: self.store.open(listeners)):
            for opened in self.store.sockets().values():
                for _ in range(2):
                    with contextlib.suppress(OSError):
                        opened.shutdown(socket.SHUT_RD)
            listen()
            for opened in self.store.sockets().values():
                with socket.create_connection(opened.getsockname()), opened.accept()[0] as accepted:
                    accepted.settimeout(0)
                    self.assertRaises(BlockingIOError, accepted.recv, 1)

    def test_interface_that_comes_back(self) -> None:
        """What listens at an address of it is reported while it is gone, and listens again on the one that has its name then; none has its number."""
        if not has_ipv6():
            raise SkipTest("this machine has no IPv6")
        namespace = Namespace(self)
        namespace.enter()
        add = "addr add fe80::1/64 dev {} nodad"
        for name in ("its", "other"):
            namespace.ip(f"link add {name} type bridge")
            namespace.ip(add.format(name))
            namespace.ip(f"link set {name} up")
        namespace.ip("link property add dev other altname same")
        found = [*map(has_interface, ("same", "1", "no.such.link"))]
        self.assertEqual(found, [True, True, False])
        ends = [f"[fe80::1%{name}]:7001" for name in ("its", "same")]
        long = r"tcp:7002:interface=fe80\:\:1%same:backlog=1000"
        number = f"[fe80::1%{socket.if_nametoindex('its')}]:7003"
        self.store.open([self.listener(*ends, f"udp:{ends[0]}", "[::1%1]:7001", long, number)])
        self.assertEqual(self.store.revive(), [])
        its = "[fe80::1%its]:7001"
        ends_of_two = ("its]:7003", "other]:7001", "other]:7002")
        where = {its, f"udp:{its}", "[::1]:7001", *(f"[fe80::1%{one}" for one in ends_of_two)}
        self.assertEqual({*self.store.addresses.values()}, where)
        namespace.ip("link del its")
        before = inodes(self.store.sockets())
        for _ in range(2):
            self.assertEqual(self.store.revive(), [])
            missing = self.store.unreached()
            self.assertEqual(len(missing), 3)
            self.assertIn("this machine has no interface 'its'; see 'ip link'", missing[0])
        namespace.ip("link add its type bridge")
        namespace.ip(add.format("its"))
        namespace.ip("link set its up")
        kinds = sorted(key.partition(":")[0] for key in self.store.revive())
        [lost] = self.store.unreached()
        self.assertEqual(kinds, ["tcp", "udp"])
        self.assertIn("[fe80::1%its]:7003: No such device", lost)
        after = inodes(self.store.sockets())
        same = [key for key in before if before[key] == after[key]]
        local = [f"tcp:{one}" for one in (ends[1], "[::1%1]:7001", "[fe80::1%same]:7002", number)]
        self.assertEqual(same, local)
        with socket.socket(socket.AF_INET6) as client:
            client.connect(socket.getaddrinfo("fe80::1%its", 7001)[0][4])
        self.assertEqual(self.store.revive(), [])

    def test_what_has_an_address(self) -> None:
        """The reason names what of the service, or of systemd, is in the way; what is not of them stays as the system says it."""
        port = free_port()
        plain = self.listener(f"127.0.0.1:{port}")
        tcp, mptcp, every, unix = (
            listen_addresses(one)[0]
            for one in (
                plain, attrs.evolve(plain, mptcp=True), self.listener(f":{port}"),
                self.listener("unix:/x"),
            )
        )  # fmt: skip
        in_use, other = OSError(errno.EADDRINUSE, "in use"), OSError(errno.EACCES, "denied")
        self.store.open([plain])
        for passed, address, problem, why in (
            ([], tcp, other, "denied"), ([], unix, in_use, "in use"), ([tcp.key], tcp, in_use, "systemd has it, and passes it when"),
            ([tcp.key], mptcp, in_use, "systemd has passed a socket there: change 'mptcp'"),
            ([], mptcp, in_use, "'mptcp' cannot change while the service runs"),
            ([tcp.key], every, in_use, f"systemd has passed a socket at 127.0.0.1:{port}, which overlaps it"),
        ):  # fmt: skip
            self.store.passed = passed
            found = self.store.why_not(address, problem)
            self.assertIn(why, str(found))
            self.assertEqual(found is problem, why in {"denied", "in use"})
        self.store.passed = [tcp.key]
        ended = self.store.ended_by_removal([tcp.key, mptcp.key, unix.key, "udp:x"])
        self.assertEqual(ended, [mptcp.key, unix.key])
        self.store.open([])  # systemd's stays, for rules that may have it again
        self.assertEqual(self.store.unused, {})
        kept = self.store.get(tcp.key)
        assert kept is not None
        self.assertIs(self.store.prepare([plain]).sockets[tcp.key], kept.socket)
        self.store.give_up(tcp.key)
        self.store.give_up(tcp.key)
        self.assertTrue(is_refused(("127.0.0.1", port)))

    def test_socket_of_systemd_that_the_operator_has(self) -> None:
        """No other owner gets it, and a client that has gone again blocks nobody."""
        with socket.create_server(("127.0.0.1", 0)) as passed:
            number = passed.fileno()
            script = f'exec 3<&{number}; LISTEN_FDS=1 LISTEN_FDNAMES=a LISTEN_PID=$$ exec "$@"'
            words = ["bash", "-c", script, "bash", sys.executable, "-c", _WITH_PASSED]
            done = subprocess.run(
                words, check=False, capture_output=True, text=True, pass_fds=[number]
            )
        self.assertRegex(
            done.stdout, r"False\n\['.* named twice: remove one'\] \[\]\n", done.stderr
        )

    def test_datagrams_stay_with_their_flows(self) -> None:
        udp, tcp = self.listener("udp:127.0.0.1:0"), self.listener("127.0.0.1:0")
        self.store.open([udp, tcp])
        key, opened = next(iter(self.store.sockets().items()))
        self.store.prepare([]).commit()
        self.assertEqual(len(self.store.unused), 2)
        self.store.drain_unused()
        self.assertEqual((self.store.draining(), len(self.store.unused)), ({key: opened}, 1))
        self.store.close_unused()
        self.store.shut_unneeded([])
        self.assertEqual(self.store.draining(), {key: opened})

    def test_listens_again(self) -> None:
        """A file that is gone is made again, that of another program stays and is told once; what a process has shut down listens again."""
        replaced, path = list[int](), self.folder / "x.sock"
        self.store.replaced = lambda: replaced.append(1)
        self.store.open([self.listener(f"unix:{path}"), self.listener("127.0.0.1:0")])
        unix, tcp = self.store.sockets()

        def revived() -> tuple[list[str], list[str], list[str]]:
            with capturedLogs() as events:
                keys = self.store.revive()
            lines = [formatEvent(event) or "" for event in events]
            return keys, lines, self.store.unreached()

        self.assertEqual(revived(), ([], [], []))
        self.store.sockets()[tcp].shutdown(socket.SHUT_RD)
        keys, [line], why = revived()
        self.assertIn("a process of txmux had shut the socket down", line)
        self.assertEqual((keys, why, replaced), ([], [], []))
        path.rename(self.folder / "own")
        path.touch()
        covered = f"[listen x]: another program has put its own file at {path}; move that file away"
        for lines in (1, 0):
            keys, told, why = revived()
            named = [f"program has put its own file at {path}, so" in one for one in told]
            self.assertEqual((keys, named, why), ([], [True] * lines, [covered]))
        path.unlink()
        (self.folder / "own").rename(path)
        self.assertEqual(revived(), ([], [], []))
        path.unlink()
        keys, [line], why = revived()
        self.assertIn("again: its file had been removed", line)
        self.assertEqual((keys, why, replaced, path.is_socket()), ([unix], [], [1], True))
        folder = path.parent
        folder.rename(moved := folder.with_suffix(".moved"))
        for lines in (1, 0):
            keys, told, why = revived()
            self.assertEqual((keys, len(told)), ([], lines))
            lacking = f"it cannot listen at unix:{path}: there is no folder '{folder}'"
            self.assertIn(f"[listen x]: {lacking}", why[0])
        moved.rename(folder)
        self.assertEqual(revived(), ([], [], []))

    def test_awaited_and_late(self) -> None:
        """What a unit cannot have yet is tried again; what another store of the service still has, once that has closed it."""
        port, available = free_port("127.0.0.1"), list[int]()
        others = ListeningSockets(reactor)
        store = ListeningSockets(reactor, available=lambda: available.append(1), others=others)
        for one in (others, store):
            self.addCleanup(one.close)
        listener = parse(f"[listen p]\nendpoint = 127.0.0.1:{port}\n", "x.ini").listeners[0]
        others.open([listener])
        self.assertEqual(len([*store.unavailable([listener])]), 1)
        path = self.folder / "free.sock"
        [free] = parse(f"[listen q]\nendpoint = unix:{path}\n", "x.ini").listeners
        self.assertEqual(([*store.unavailable([free])], path.exists()), ([], False))
        store.look_at_awaited()
        self.assertEqual((available, [one.port for one in store.awaited]), ([], [port]))
        addresses = listen_addresses(listener)
        self.assertRaises(ListenError, store.prepare_addresses, addresses, [listener])
        prepared = store.prepare_addresses(addresses, [])
        self.assertEqual((prepared.late, prepared.sockets), ([*addresses], {}))
        self.assertRaises(ListenError, prepared.add_late)
        prepared = store.prepare_addresses(addresses, [])
        others.open([])
        store.look_at_awaited()
        self.assertEqual(available, [1])
        prepared.add_late()
        prepared.commit()
        self.assertEqual(len(store.sockets()), 1)

    def test_unix_file(self) -> None:
        """The file of a UNIX socket has the mode that is asked for, and goes with the socket unless it is to stay."""
        path = self.folder / "x.sock"
        self.store.open([self.listener(f"unix:{path}:mode=640")])
        self.assertEqual(path.stat().st_mode & 0o777, 0o640)
        self.store.close(keep_files=True)
        self.assertTrue(path.exists())
        self.store.open([self.listener(f"unix:{path}")])
        self.assertEqual(path.stat().st_mode & 0o777, 0o666)
        self.store.close()
        self.assertFalse(path.exists())
        # Of a file that cannot be removed, the log says which, and why.
        folder = self.folder / "gone"
        folder.mkdir()
        self.store.open([self.listener(f"unix:{folder / 'x.sock'}")])
        folder.rename(self.folder / "elsewhere")
        folder.touch()
        with capturedLogs() as events:
            self.store.close()
        self.assertEqual(
            [formatEvent(event) for event in events if event["log_level"].name == "warn"],
            [f"{folder / 'x.sock'} cannot be removed: not a directory"],
        )

    def test_file_that_another_program_has_bound_since_stays(self) -> None:
        """At a stop and a reload, where clients are refused, and after an upgrade before which it was bound."""
        path = self.folder / "x.sock"
        unix, key = self.listener(f"unix:{path}"), f"unix:{path}"
        ways = {
            "stop": self.store.close,
            "reload": lambda: self.store.open([self.listener("tcp:0:interface=127.0.0.1")]),
            "removal": lambda: self.store.remove_files([key]),
            "upgrade": self.hand_over,
        }
        for way, close in ways.items():
            self.store.open([unix])
            path.unlink()
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
                close()
                self.assertTrue(path.is_socket(), way)
            path.unlink()
            self.store.close()

    def hand_over(self) -> None:
        successor = ListeningSockets(reactor)
        for key, opened in self.store.sockets().items():
            successor.adopt(key, opened.dup(), self.store.files[key])
        self.store.close(keep_files=True)
        successor.close()
