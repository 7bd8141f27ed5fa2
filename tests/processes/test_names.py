"""Names of servers, which the supervisor looks up for all workers."""

import time
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, eventAsText
from twisted.names import dns
from twisted.trial.unittest import TestCase

from tests.backends.names.nameserver import SILENCE, NameServer, a, srv
from tests.processes.running import with_workers
from tests.support.datagrams import Talker, turn
from tests.support.kit import RULES, Service, SupervisedTestCase, free_port, make_folder, set_limits
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from tests.support.proc import halted, serves
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.backends.health.checks import key_of
from txmux.errors import MuxError
from txmux.net.channel import messages

HOST, OTHER = "web.test", "other.test"
HOSTS = "127.0.0.1", "127.0.0.2"


class NamesTest(SupervisedTestCase):
    """Two workers, whose supervisor's clock stands still until it is moved, and a server at the same port of each of two addresses."""

    def setUp(self) -> None:
        super().setUp()
        self.dns = self.name_server()
        self.first, self.second = PeerFactory(), PeerFactory()
        self.server = free_port()
        for host, factory in zip(HOSTS, (self.first, self.second), strict=True):
            port = reactor.listenTCP(self.server, factory, interface=host)
            self.addCleanup(port.stopListening)

    def name_server(self) -> NameServer:
        started = NameServer()
        started.listen()
        self.addCleanup(started.stop)
        return started

    def rules(self, server: str = "", more: str = "", settings: str = "") -> str:
        return (
            f"[txmux]\nworkers = 2\nresolvers = {self.dns.shown}\naccess_log = LOG\n{settings}"
            "[listen public]\nendpoint = 127.0.0.1:0\ndefault = named\n"
            f"[backend named]\nserver = {server or f'{HOST}:{self.server}'}\nretries = 0\n{more}"
        )

    async def begin(self, server: str = "", more: str = "", settings: str = "") -> None:
        rules = self.rules(server, more, settings)
        self.port, *_ = await self.run_service(rules, use=self.time)

    async def asked(self, times: int, name: str = HOST) -> None:
        await self.until(lambda: self.dns.asked[name, dns.A] >= times)

    async def known(self, *texts: str) -> None:
        (upstream,) = self.supervisor.state.upstreams.all()
        await self.until(
            lambda: [member.target.text for member in upstream.pool.members] == [*texts]
        )
        await self.running.control.status()  # it is asked after that was told

    async def test_one_question(self) -> None:
        """A name is looked up once, and again when its answer is out of date; all workers follow each change, and a restarted one needs no name server."""
        self.dns.zone[HOST] = a(HOSTS[0], ttl=5)
        await self.begin()
        await self.all_lead_to(self.first)
        self.assertEqual(self.dns.asked, {(HOST, dns.A): 1, (HOST, dns.AAAA): 1})
        self.dns.zone[HOST] = a(HOSTS[1], ttl=5)
        self.time.advance(5)
        await self.known(f"{HOSTS[1]}:{self.server}")
        await self.all_lead_to(self.second)
        self.assertEqual(self.dns.asked[HOST, dns.A], 2)
        sources = (await self.running.control.status())["sources"]
        names = [{"source": f"names {self.dns.shown}", "up": True, "age": 0.0, "why": ""}]
        self.assertEqual(sources, names)
        self.dns.fail(HOST, SILENCE)
        before = dict(self.dns.asked)
        await self.killed(self.supervisor.pool.workers[0])
        await self.all_serve()
        await self.all_lead_to(self.second)
        self.assertEqual(self.dns.asked, before)

    async def test_reload_does_not_wait_for_a_name_that_had_no_answer_before(self) -> None:
        self.dns.fail(HOST, SILENCE)
        self.dns.zone[OTHER] = a(HOSTS[1])
        await self.begin()
        await self.asked(1)
        await self.change(self.rules(f"{OTHER}:{self.server}"))
        await self.all_lead_to(self.second)

    async def test_reload(self) -> None:
        """Clients wait for the first answer, and a reload for the addresses of new names; then all workers have them."""
        self.dns.zone[HOST], self.dns.zone[OTHER] = a(HOSTS[0]), a(HOSTS[1])
        self.dns.fail(HOST, SILENCE)
        await self.begin()
        await self.asked(1)
        clients = await self.client_of_each()
        self.assertEqual(self.first.peers, [])
        self.dns.codes.clear()
        self.time.advance(1)
        for number, client in enumerate(clients):
            (await self.first.heard(1, number)).close()
            client.close()
        await self.all_lead_to(self.first)
        self.dns.fail(OTHER, SILENCE)
        changed = Deferred.fromCoroutine(self.change(self.rules(f"{OTHER}:{self.server}")))
        await self.asked(1, OTHER)
        self.assertNoResult(changed)
        self.dns.codes.clear()
        self.time.advance(1)
        await changed
        self.dns.fail(OTHER, SILENCE)
        await self.all_lead_to(self.second)
        self.assertEqual(self.dns.asked[OTHER, dns.A], 2)

    async def test_reload_without_answer(self) -> None:
        """It does not wait for long; who comes then waits, and the addresses reach all workers when they come."""
        self.dns.zone[HOST], self.dns.zone[OTHER] = a(HOSTS[0]), a(HOSTS[1])
        await self.begin()
        silent = [self.name_server() for _ in range(3)]  # each is given a second
        more = f"resolvers = {', '.join(one.shown for one in (*silent, self.dns))}\n"
        changed = Deferred.fromCoroutine(self.change(self.rules(f"{OTHER}:{self.server}", more)))
        for one in silent:
            one.fail(OTHER, SILENCE)
        names = self.supervisor.state.upstreams._names
        await self.until(lambda: names._waiting)  # which begins after the first question
        for one in silent:
            await self.until(lambda one=one: one.asked[OTHER, dns.A])  # type: ignore[misc]
            if one is not silent[-1]:
                self.assertNoResult(changed)
                self.time.advance(1)
        await changed
        await self.client_of_each()
        self.assertEqual(self.dns.asked[OTHER, dns.A], 0)
        self.time.advance(1)
        await self.second.heard(1, 0)
        await self.second.heard(1, 1)

    async def test_names_of_refused_rules_are_looked_up_no_more(self) -> None:
        self.dns.zone[HOST] = self.dns.zone[OTHER] = a(HOSTS[0], ttl=60)
        await self.begin("", "resolve = 60s\n")
        await self.asked(1)
        self.write(self.rules(f"{OTHER}:{self.server}", "resolve = 60s\n"))
        with mock.patch.object(self.supervisor, "_prepare", side_effect=MuxError("refused")):
            self.assertIn("refused", (await self.running.reload()).errors)
        self.time.advance(60)
        await self.asked(2)
        self.assertEqual(self.dns.asked[OTHER, dns.A], 1)

    async def test_failure(self) -> None:
        """That a name cannot be found is logged once, and no client waits for it any more."""
        with capturedLogs() as events:
            await self.begin()
            for pid in (pids := self.pids()):
                with halted({*pids} - {pid}):
                    client = await connect(self, self.port)
                    client.send(b"x")
                    await client.is_lost()
                self.assertEqual(client.received, b"")
            self.assertEqual(len(await self.stale()), 1)
            self.dns.zone[HOST] = a(HOSTS[0])
            self.time.advance(1)
            await self.known(f"{HOSTS[0]}:{self.server}")
            await self.all_lead_to(self.first)
            self.assertEqual(await self.stale(), [])
        said = [eventAsText(event) for event in events if "log_format" in event]
        for text in ("cannot find the addresses of", "are known again"):
            self.assertEqual(len([one for one in said if text in one]), 1, said)

    async def stale(self) -> list[str]:
        """Give what the status and the backends tell of names that cannot be found; it is the same."""
        status, listing = await self.running.control.status(), await self.running.control.backends()
        found = [one["why"] for backend in listing for one in backend["servers"] if one["why"]]
        self.assertEqual([one["cause"] for one in status["attention"]], found)
        return found

    async def test_everything_of_an_address(self) -> None:
        """Workers know ports, weights, priorities and names of an SRV record's servers: their members are the supervisor's."""
        self.dns.zone["_a._tcp.test"] = [
            srv("far.test", 1, priority=2),
            srv("near.test", self.server, priority=1, weight=5),
        ]
        self.dns.zone["near.test"], self.dns.zone["far.test"] = a(HOSTS[0]), a(HOSTS[1])
        await self.begin("srv:_a._tcp.test", "slow_start = 1s\n")  # with it, all servers are told
        await self.known(f"{HOSTS[0]}:{self.server}", f"{HOSTS[1]}:1")
        await self.all_lead_to(self.first)
        (upstream,) = self.supervisor.state.upstreams.all()
        keys = {key_of(member) for member in upstream.pool.members}
        for worker in self.supervisor.pool.workers:
            told = await worker.ask(messages.SERVERS)
            self.assertEqual({f"{one['server']} {one['target']}" for one in told}, keys)

    async def test_datagrams(self) -> None:
        """The same for UDP: the worker that reads datagrams has the addresses."""
        self.dns.zone[HOST] = a(HOSTS[0])
        server = Talker.listening(self)
        text = self.rules(f"udp:{HOST}:{server.port}").replace(" 127.0.0.1:0", " udp:127.0.0.1:0")
        (port,) = await self.run_service(text.replace("retries = 0\n", ""), use=self.time)
        Talker.listening(self).say(b"hello", port)
        self.assertEqual(await server.hears(1), [b"hello"])
        self.assertEqual(self.dns.asked[HOST, dns.A], 1)


class _Answering(Peer):
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.send(data)

    def readConnectionLost(self) -> None:
        self.close()


class ChangingNamesTest(TestCase):
    def setUp(self) -> None:
        self.server = PeerFactory(_Answering)
        self.dns = first = NameServer({HOST: a("127.0.0.1")})
        # Each that is silent is given a second, and three more in the second round.
        self.name_servers = [first, *(NameServer(first.zone, first.codes) for _ in range(3))]
        for one in self.name_servers:
            one.listen()
            self.addCleanup(one.stop)
        self.place = listen(self, self.server)

    async def begin(self, backend: str) -> Service:
        places = ", ".join(one.shown for one in self.name_servers)
        rules = f"{RULES}default = named\n[backend named]\n{backend}\n[route all]\nmatch = tls\nbackend = named\n"
        settings = f"workers = 2\nresolvers = {places}"
        mux = await deferToThread(Service, make_folder(self), rules, settings, admin=True)
        self.addCleanup(deferToThread, mux.kill_all)
        return mux

    async def test_new_process_serves_though_no_name_server_answers(self) -> None:
        """Its addresses are as old as they were."""
        set_limits(self, {"backends.names.question._PATIENCE": (0.3, 0.9)})
        mux = await self.begin(f"server = {HOST}:{self.place}\nresolve = 1s")
        for number in range(2):
            client = await connect(self, mux.port)
            client.send(b"x")
            peer = await self.server.heard(1, number)
            peer.close()
            await client.is_lost()
            if not number:
                self.dns.fail(HOST, SILENCE)
                began = time.time()
                await deferToThread(mux.upgrade)
        self.assertNotIn("no-server", mux.log.read_text())
        found = list[float]()
        while not found:
            await deferLater(reactor, 0.2)
            found = [item["since"] for item in await deferToThread(mux.attention, "names")]
        self.assertLess(found[0], began)
        await deferToThread(mux.stop)

    async def test_workers_that_end_wait_for_names(self) -> None:
        """Clients are served whose server's name was looked up when their worker was told to end."""
        # However long a change takes here, another query follows.
        set_limits(self, {"backends.names.question._PATIENCE": (1.0, *(3.0,) * 60)})
        for is_upgrade in (False, True):
            self.dns.fail(HOST, SILENCE)
            self.dns.asked.clear()
            mux = await self.begin(
                f"server = {{sni}}:{self.place}\nallow_names = *.test\nallow_networks = 127.0.0.1\n"
                "connect_timeout = 10m"
            )
            workers, clients = mux.workers, []
            for pid in workers:
                with halted({*workers} - {pid}):
                    client = await connect(self, mux.port)
                    clients.append(client)
                    client.send(records(client_hello(server_name(HOST))))
                    while not serves(pid, client.transport.getHandle()):
                        await turn()
            while self.dns.asked[HOST, dns.A] < 2:
                await turn()
            change = (mux.replace,) if is_upgrade else (mux.reload, with_workers(1))
            await deferToThread(*change)
            self.dns.codes.clear()
            for client in clients:
                await client.until(lambda one=client: one.received or one.finished)  # type: ignore[misc]
                self.assertTrue(client.received, mux.log.read_text())
                client.close()
                await client.is_lost()
            lines = await deferToThread(mux.take, 2)
            self.assertEqual([line["reason"] for line in lines], ["done"] * 2)
            await deferToThread(mux.stop)
