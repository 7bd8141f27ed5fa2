import os
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import ServiceTestCase, Talker, change_constants
from tests.udp.flow_case import FlowCase
from txmux.access.admission import Admission
from txmux.client.overrides import Overrides
from txmux.rules.model import Listener, Rules, Settings
from txmux.serving import listening_ports
from txmux.serving.serving import Serving
from txmux.tcp.listener import MuxFactory
from txmux.udp.listener import UDPListener

_RULES = """
[txmux]
access_log = LOG
[listen x]
endpoint = 127.0.0.1:0
connection_rate_per_source = 2/h
[listen u]
endpoint = udp:127.0.0.1:0
[route r]
match = any
under = x
backend = b
[backend b]
server = 127.0.0.1:1
"""


class SharedTest(SynchronousTestCase):
    def test_workers_divide_the_rate_at_which_waiting_clients_go_on(self) -> None:
        no_listener: Any = None
        both = Settings(workers=4), Settings(workers=3)
        first, second = (Rules(Path("rules"), its, (), (), {}) for its in both)
        for shared, numbers in ((True, [4, 3]), (False, [1, 1])):
            serving = Serving(first, None, Clock(), accepting=False, shared=shared)
            found = [serving.upstreams.known.processes]
            serving.commit(serving.prepare(second, {}, no_listener))
            self.assertEqual([*found, serving.upstreams.known.processes], numbers)

    def test_workers_leave_clients_to_each_other(self) -> None:
        """One that is alone accepts all that wait at once."""
        for workers, count in ((2, 4), (1, 9)):
            rules = Rules(Path("rules"), Settings(workers=workers), (), (), {})
            serving = Serving(rules, None, MemoryReactorClock(), shared=True)
            factory = Mock(spec=Factory, **{"buildProtocol.return_value": None})
            with socket.create_server(("127.0.0.1", 0)) as opened:
                port: Any = serving.runtime.listen(opened, factory, ())
                for _ in range(9):
                    socket.create_connection(opened.getsockname()).close()
                port.max_batch_time = 600.0
                port.doRead()
            self.assertEqual(factory.buildProtocol.call_count, count)
            port.stopListening()

    def test_no_client_reaches_the_admin_endpoint(self) -> None:
        admin = "127.0.0.1:7000", "unix:/run/x.sock"
        settings = Settings(admin=admin, metrics="[::1]:7001")
        serving = Serving(Rules(Path("rules"), settings, (), (), {}), None, Clock())
        is_own = serving.runtime.loop_detector.is_own_address
        places = ("127.0.0.1", 7000), ("::1", 7001), ("127.0.0.1", 7001)
        self.assertEqual([is_own(*place) for place in places], [True, True, False])

    def test_port_that_could_not_be_opened(self) -> None:
        """Its listener is there, for when it can."""
        rules = Rules(Path("rules"), Settings(), (Listener("x", ("ssl:1:privateKey=x",)),), (), {})
        serving = Serving(rules, None, Clock())
        serving.listen_all(rules, {}, {}, partial(Admission, seconds=Clock().seconds))
        self.assertEqual((len(serving.listeners), serving.listening_ports.keys()), (1, set()))

    def test_slow_reader_of_the_access_log(self) -> None:
        """It has the drain time-out, unless all is to end at once."""
        for late in (False, True):
            for hurry in (False, True):
                clock, log = Clock(), Mock(write_rest=Mock(return_value=False))
                settings = Settings(drain_timeout=5)
                serving = Serving(Rules(Path("rules"), settings, (), (), {}), log, clock)
                stopped = Deferred.fromCoroutine(serving.drain())
                clock.pump([0.1] * 48)
                self.assertNoResult(stopped)
                if hurry:
                    serving.end_all()
                log.write_rest.return_value = not late and not hurry
                clock.pump([0.1] * (3 if late and not hurry else 1))
                self.successResultOf(stopped)
                log.close.assert_called_once_with()


class ProcessTest(ServiceTestCase):
    def begin(self) -> Any:
        self.run_service(_RULES)
        return self.running.serving

    def test_connections_and_flows_of_listeners_that_the_rules_lack(self) -> None:
        """What another process hands over goes to the listener of its name and kind, be it gone; its admission is the process's own."""
        serving = self.begin()
        tcp, udp = serving.listeners
        self.assertEqual((serving.factory_of("x"), serving.udp_listener_of("u")), (tcp, udp))
        made = list[str]()

        def admission(settings: Listener) -> Admission:
            made.append(settings.name)
            return Admission(settings, Clock().seconds)

        for name, serving.admission, find, kind in (  # noqa: B020 - an attribute
            ("gone", None, serving.factory_of, MuxFactory),
            ("u", admission, serving.factory_of, MuxFactory),
            ("x", admission, serving.udp_listener_of, UDPListener),
        ):
            one = find(name)
            self.assertEqual((type(one), one.configuration.settings.name), (kind, name))
            self.assertIs(find(name), one)
            self.assertIn(one, serving.listeners)
        self.assertEqual(made, ["u", "x"])

    def test_rules_that_are_given_up_after_all(self) -> None:
        serving = self.begin()
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for log, number in (("LOG", 0), ("LOG.other", 1)):
            rules = self.parsed(_RULES.replace("LOG", log))
            admission = partial(Admission, seconds=Clock().seconds)
            prepared = serving.prepare(rules, {}, admission)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before + number)  # noqa: PTH208
            serving.abandon(prepared)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)  # noqa: PTH208

    async def test_what_is_missing(self) -> None:
        serving = self.begin()
        self.assertEqual(await serving.missing(), [])
        serving.apply_overrides(Overrides().with_listener("x", accepting=False).as_json())
        self.assertEqual(await serving.missing(), ["[listen x]: no client is accepted"])
        serving.apply_overrides(Overrides().as_json())
        held_up = {serving.listening_ports.ports[0].fileno(): ("none left", 1.0)}
        patched = self.patch(listening_ports, "cannot_accept", lambda: held_up)
        self.assertEqual(await serving.missing(), ["[listen x]: cannot accept: none left"])
        patched.restore()
        told = Overrides().with_server("b", "127.0.0.1:1", 1.0, "drain", None).as_json()
        serving.restore({"wanted": told, "sources": {}, "servers": []})
        [why] = await serving.missing()
        self.assertIn("backend b", why)
        serving.restore({})
        self.assertEqual(await serving.missing(), [why])
        found = await serving.status()
        self.assertEqual(found, {"generation": 1, "active": 0, "undecided": 0, "older": 0})

    def test_what_the_supervisor_sends(self) -> None:
        """It reaches the part of its feature, if this process has it; bans end what they concern."""
        serving = self.begin()
        received = list[object]()
        parts = {"f": SimpleNamespace(receive=received.append)}
        change_constants(self, serving.runtime, parts=parts)
        serving.receive("g", 1)
        serving.restore({"parts": {"f": 2, "g": 3}})
        self.assertEqual(received, [2])
        checked = list[bool]()
        self.patch(serving, "end_denied", lambda: checked.append(True))
        row = (4, 0, 127 << 24 | 1, None)
        for rows in ([row], [row], []):
            serving.ban(rows)
        self.assertEqual(len(checked), 1)


class FlowsTest(FlowCase):
    async def test_port_that_comes_back_has_its_flows(self) -> None:
        """A reload that removes it leaves the flows their port; one that names it again opens that one, for new clients, too."""
        server, client, port = self.served()
        before = self.running.rules
        self.assertEqual(await client.asks(b"ab", port), b"ba")
        self.running.reload(attrs.evolve(before, listeners=(), routes=()))
        self.assertEqual(self.ports(), [])
        self.assertEqual(await client.asks(b"cd", port), b"dc")
        self.running.reload(before)
        self.assertEqual(self.ports(), [port])
        self.assertEqual(await client.asks(b"ef", port), b"fe")
        self.assertEqual(await Talker.listening(self).asks(b"gh", port), b"hg")
        self.assertEqual(len({*server.senders}), 2)
        found = sorted(str(one["datagrams_in"]) for one in await self.stopped(2))
        self.assertEqual(found, ["1", "3"])
