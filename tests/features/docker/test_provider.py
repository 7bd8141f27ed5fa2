import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.cli.provider.running import PlayedProvider
from tests.support.docker import NETWORK, DockerPlayed, inspected
from tests.support.kit import PATIENCE, CommandTestCase, change_constants, reactor
from txmux.errors import MuxError
from txmux.features.docker import api, provider, sleep
from txmux.features.docker.provider import docker
from txmux.net.http import RequestFailedError, request
from txmux.rules.reading.parser import load
from txmux.telemetry.provider_state import reported_sources

LABELS = {"txmux.match": "any"}


class ServiceAsked:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.is_away = self.is_unknown = self.is_behind = False
        self.active = self.held = self.total = self.asked = 0

    async def ask(self, method: str, path: str, _: object = None) -> Any:
        if self.is_away:
            raise MuxError("no service answers")
        if (method, path) == ("POST", "/api/reload"):
            return {}
        assert (method, path) == ("GET", "/api/backends")
        self.asked += 1
        if self.is_unknown or not self._file.exists():  # it has not been written yet
            return []
        server, _, down = self._file.read_text().partition("server = ")[2].strip().partition(" ")
        state = "disabled" if down and not self.is_behind else "up"
        row = {"server": server, "state": state, "active": self.active}
        return [{"name": "web", "held": self.held, "servers": [{**row, "total": self.total}]}]


@pytest.mark.by_turns(each=True)
class ProviderTest(TestCase):
    def setUp(self) -> None:
        self.provided = provided = PlayedProvider(self, docker)
        self.folder, self.file, self.text = provided.folder, provided.file, provided.text
        self.until, self.written, self.logged = provided.until, provided.written, provided.logged
        self.daemon = DockerPlayed(self, self.folder / "docker.sock")
        self.service = ServiceAsked(self.file)
        provided.ask = self.service.ask
        change_constants(self, provider, _PAUSE=0.05, _SHORTEST_PAUSE=0.05)
        change_constants(self, sleep, _PAUSE=0.02)

    def run_provider(self, *more: str, network: Sequence[str] = ("--network", NETWORK)) -> None:
        own = [f"--socket=unix:{self.folder}/docker.sock", f"--wake=unix:{self.folder}/wake.sock"]
        self.end = self.provided.start(*own, *network, *more)

    async def provides(self, text: str) -> None:
        self.run_provider()
        await self.written(text)

    async def test_containers_come_and_go(self) -> None:
        web = self.daemon.put(inspected("web", {"txmux.match": "tls sni=a.example"}))
        self.daemon.put(inspected("other", {"match": "any"}))
        await self.provides("[backend web]\nserver = 10.88.0.6:80\n")
        route = "[route web]\nmatch = tls sni=a.example\nunder = public\nbackend = web\n"
        self.assertIn(route, self.text())
        await self.until(lambda: self.daemon.streams)
        self.daemon.busy = web  # what happens to one while others are inspected
        self.daemon.put(inspected("api", LABELS, address="10.88.0.7"))
        await self.written("10.88.0.7:80")
        self.assertIn("[route web]", self.text())
        api = inspected("api", LABELS, address="10.88.0.8", health="unhealthy")
        self.daemon.put(api, "health_status")
        await self.written("10.88.0.8:80 down")
        self.daemon.tell("kill", web, signal="1")
        self.daemon.put(inspected("api", LABELS, address="10.88.0.8"), "health_status")
        await self.until(lambda: "down" not in self.text())
        self.daemon.tell("kill", web, signal="15")
        await self.written("10.88.0.6:80 down")
        self.daemon.remove(web)
        await self.until(lambda: "[route web]" not in self.text())
        self.assertIn("[route api]", self.text())
        self.assertNotIn(f"GET /containers/{b'other'.hex()}/json", self.daemon.asked)

    async def test_a_signal_that_stops_nothing(self) -> None:
        """Nor is one overlooked that comes between two streams."""
        change_constants(self, provider, _PERIOD=0.2, _LONGEST_STOP=0.5)
        web = self.daemon.put(inspected("web", LABELS))
        await self.provides("10.88.0.6:80\n")
        await self.until(lambda: self.daemon.streams)
        self.daemon.tell("kill", web, signal="28")
        await self.written("10.88.0.6:80 down\n")
        await self.written("10.88.0.6:80\n")
        streams, self.daemon.streams = self.daemon.streams, []
        self.daemon.tell("kill", web, signal="15")
        self.daemon.streams += streams
        await self.written("10.88.0.6:80 down\n")

    async def test_a_container_that_goes_while_podman_looks(self) -> None:
        """The daemon is there, and asked again at once."""
        self.daemon.put(inspected("web", LABELS))
        self.daemon.gone_meanwhile = 2
        await self.provides("[route web]")
        self.daemon.tell("start", "beef")  # which is gone when it is looked at
        web = self.daemon.put(inspected("web", LABELS, address="10.88.0.9"))
        await self.written("10.88.0.9:80")
        # One that was known, too, is forgotten if it is listed, but no longer there to be asked.
        self.daemon.containers["listed"] = self.daemon.containers.pop(web)
        self.daemon.tell("start", web)
        await self.until(lambda: "[route web]" not in self.text())
        self.assertNotIn("# left out", self.text())
        self.assertNotIn("status 404", self.logged())
        self.daemon.gone_meanwhile = 9
        self.daemon.tell("die", "c0ffee")
        await self.until(lambda: "status 500" in self.logged())

    async def test_a_thousand(self) -> None:
        for number in range(1000):
            answer = inspected(f"c{number}", {"txmux.match": f"tls sni=c{number}.example"})
            self.daemon.containers[answer["Id"]] = answer
        await self.provides("[route c999]")
        asked = len(self.daemon.asked)
        self.daemon.put(inspected("c7", {"txmux.match": "tls sni=other.example"}))
        await self.written("sni=other.example")
        self.assertLess(len(self.daemon.asked) - asked, 10)

    async def test_one_that_cannot_be_inspected_stops_no_other(self) -> None:
        """As a daemon answers of one whose storage is damaged, or does not answer. What was known of it stays, also what another program has written."""
        change_constants(self, provider, _PERIOD=0.2, _MOMENT=0.1)
        strange, odd, other = (inspected(name, LABELS) for name in ("strange", "odd", "other"))
        strange["Config"]["ExposedPorts"] = 1
        odd["Config"]["Labels"] = [7]
        other["NetworkSettings"]["Networks"] = {NETWORK: 7}
        for one in (strange, odd, other):  # the last two in the list, too
            self.daemon.put(one)
        bad, web = (inspected(name, LABELS)["Id"] for name in ("bad", "web"))
        why = b'{"message":"layer does not exist"}'
        self.daemon.unclear[bad] = why
        for name in ("bad", "web"):
            self.daemon.put(inspected(name, LABELS))
        await self.provides("[route web]")
        unclear = [f"{name}: what" for name in ("strange", odd["Id"], "other")]
        for said in ("bad: the daemon at ", *unclear):
            self.assertIn(f"# left out: container {said}", self.text())
        self.daemon.containers[web]["HostConfig"] = "strange"
        for number, wrong in enumerate((why, b"", None)):
            self.daemon.unclear[web] = wrong
            self.daemon.tell("start", web)
            self.daemon.put(inspected(f"api{number}", LABELS, address="10.88.0.7"))
            await self.written(f"[route api{number}]")
            self.assertIn("[route web]", self.text())
        await self.until(lambda: "container web: stays as it was: the daemon at " in self.logged())
        self.assertIn(
            "container bad: the daemon at ",
            reported_sources(load(self.folder / "rules.ini"))[0].why,
        )
        await self.end()
        self.daemon.remove(b"api1".hex())
        self.run_provider()
        await self.written("[route api0]", gone="[route api1]")
        self.assertRegex(self.text(), r"(?s)\[route api0\].*\[route web\]")  # by their names
        self.daemon.remove(web)
        await self.written("[route api0]", gone="[route web]")
        self.daemon.unclear[web] = why
        for name in ("web", "api3"):
            self.daemon.put(inspected(name, LABELS))
        await self.written("[route api3]", gone="[route web]")
        self.daemon.unclear.clear()
        for one in (strange, odd, other):
            self.daemon.remove(one["Id"])
        await self.written("[route bad]", gone="strange")
        self.assertNotIn("# left out", self.text())

    async def test_daemon_away_at_the_start_and_later(self) -> None:
        await self.daemon.leave()
        self.run_provider()
        await self.until(lambda: "nothing is written until it answers" in self.logged())
        self.assertFalse(self.file.exists())
        self.assertIn(
            f"the daemon at {self.folder}/docker.sock: ",
            reported_sources(load(self.folder / "rules.ini"))[0].why,
        )
        self.daemon.put(inspected("web", LABELS))
        self.daemon.listen()
        await self.written("[route web]")
        self.assertIn("the source answers again", self.logged())
        await self.daemon.leave()
        await self.until(lambda: "stays as it is until it answers" in self.logged())
        self.assertIn("[route web]", self.text())
        self.daemon.containers.clear()
        self.daemon.listen()
        await self.until(lambda: "[route web]" not in self.text())

    async def test_streams_that_are_cut(self) -> None:
        """A proxy in front of the daemon may end streams after some time; the pause does not grow by that."""
        change_constants(self, provider, _LONGEST_PAUSE=1000)
        self.daemon.wrong = b"no JSON"
        self.run_provider()
        await deferLater(reactor, 0.5)
        self.daemon.wrong = ""
        for number in range(12):
            self.daemon.put(inspected(f"web{number}", LABELS))
            await self.written(f"[route web{number}]")
            await deferLater(reactor, 0.1)
            for stream in self.daemon.streams:
                stream.channel.transport.abortConnection()

    async def test_daemon_answers_anything(self) -> None:
        change_constants(self, api, _PATIENCE=0.2, _MOST=1 << 16)
        self.run_provider()
        for wrong, why in (
            (b"hello", "what answers is not Docker's API: no JSON"),
            (b"[1]", "what answers is not Docker's API: no list of containers"),
            (json.dumps([{"Id": "../x", "Labels": LABELS}]).encode(), "no list of containers"),
            (b"[" * 100_000, "its answer is longer than 65536 bytes"),
            ("silent", "no answer in 0.2 s"),
        ):
            self.daemon.wrong = wrong
            await self.until(lambda why=why: why in self.logged())  # type: ignore[misc]
        self.daemon.wrong = ""
        self.daemon.put(inspected("web", LABELS))
        await self.written("[route web]")

    async def test_events_without_sense_or_end(self) -> None:
        change_constants(self, api, _LONGEST_EVENT=1000)
        self.daemon.put(inspected("web", LABELS))
        self.run_provider()
        for sent, why in (
            (b"x\n", "an event is no JSON"),
            (b"{}\n", "an event has no actor"),
            (b'{"Action":"kill","Actor":{"ID":"a","Attributes":[1]}}\n', "an event has no actor"),
            (b"x" * 2000, "an event has no end"),
        ):
            await self.until(lambda: self.daemon.streams)
            before = self.logged().count(why)
            self.daemon.streams[-1].write(sent)
            await self.until(lambda w=why, n=before: self.logged().count(w) > n)  # type: ignore[misc]
            await self.until(lambda: len(self.daemon.streams) == 1)

    async def test_a_stream_that_has_been_forgotten(self) -> None:
        """Whatever the daemon does not tell is found by the next look at all, of a network and of published ports."""
        change_constants(self, provider, _PERIOD=0.2)
        answer = inspected("web", LABELS, bound=[{"HostIp": "", "HostPort": "49153"}])
        settings = answer["NetworkSettings"]
        for network in (["--network", NETWORK], []):
            self.run_provider(network=network)
            await self.until(self.file.exists)
            self.daemon.containers[answer["Id"]] = answer
            await self.written("10.88.0.6:80" if network else "127.0.0.1:49153")
            settings["Networks"][NETWORK]["IPAddress"] = "10.88.0.99"
            if not network:
                settings["Ports"]["80/tcp"] = [{"HostIp": "", "HostPort": "49154"}]
            await self.written("10.88.0.99" if network else "127.0.0.1:49154")
            await self.end()

    async def wake(self, path: str, method: str = "POST") -> int:
        bounds: Any = {"seconds": 20, "most": 1000, "address": f"{self.folder}/wake.sock"}
        return (await request(reactor, method, f"http://x{path}", {}, **bounds)).status

    async def test_wake(self) -> None:
        """All servers of a backend are started, though one cannot; its socket comes back."""
        change_constants(self, provider, _PERIOD=0.2)
        labels = {**LABELS, "txmux.wake": "yes", "txmux.backend": "web"}
        web, other = (self.daemon.put(inspected(n, labels, state="exited")) for n in ("web", "a"))
        asleep = self.daemon.put(inspected("x", LABELS, state="exited"))
        await self.provides(f"wake = http POST unix:{self.folder}/wake.sock:/web")
        at = self.folder / "wake.sock"
        self.assertEqual(at.stat().st_mode & 0o777, 0o660)
        at.unlink()
        await self.until(at.exists)
        for path, method, status in (("/x", "POST", 404), ("/", "POST", 404), ("/web", "GET", 405)):
            self.assertEqual(await self.wake(path, method), status)
        for is_broken, status in ((True, 502), (False, 204)):
            self.daemon.asked.clear()
            self.daemon.broken = is_broken
            self.assertEqual(await self.wake("/web"), status)
            for key in (web, other):
                self.assertIn(f"POST /containers/{key}/start", self.daemon.asked)
            self.assertNotIn(f"POST /containers/{asleep}/start", self.daemon.asked)
        self.assertIn("web: cannot be started: the daemon at ", self.logged())
        await self.written("server = 10.88.0.6:80\n")
        with socket.socket(socket.AF_UNIX) as client:  # whose body has no end
            client.connect(str(at))
            client.sendall(b"POST /web HTTP/1.1\r\nContent-Length: 9999999\r\n\r\nx")
            client.settimeout(PATIENCE)
            self.assertEqual(await deferToThread(client.recv, 1), b"")
        await self.end()
        with self.assertRaises(RequestFailedError):
            await self.wake("/web")
        self.run_provider("--wake", "unix:/proc/wake.sock")
        await self.until(lambda: "cannot listen at /proc/wake.sock: " in self.logged())
        self.assertEqual(self.logged().count("cannot listen at /proc/wake.sock: "), 1)

    async def test_sleep(self) -> None:
        stop = f"POST /containers/{self.put_sleeper()}/stop"
        for name, busy in (("active", 1), ("held", 1), ("is_away", True), ("is_unknown", True)):
            setattr(self.service, name, busy)
            if name == "active":
                await self.provides("[route web]")
            await deferLater(reactor, 0.4)
            self.assertNotIn(stop, self.daemon.asked, name)
            setattr(self.service, name, 0)
        await self.until(lambda: stop in self.daemon.asked)
        await self.written("server = 127.0.0.1:80 down")
        self.assertIn("container web: stopped, had no connection for 0.1 s", self.logged())

    def put_sleeper(self, after: str = "100ms") -> str:
        labels = {**LABELS, "txmux.wake": "yes", "txmux.sleep": after}
        return str(self.daemon.put(inspected("web", labels)))

    async def test_daemon_away_when_it_is_time_to_sleep(self) -> None:
        self.put_sleeper("200ms")
        await self.provides("[route web]")
        await self.daemon.leave()
        await self.until(lambda: "stays as it is" in self.logged())
        await deferLater(reactor, 0.6)
        self.assertIn("[route web]", self.text())
        self.assertNotIn("answers again", self.logged())

    async def test_one_that_cannot_be_stopped(self) -> None:
        web = self.put_sleeper()
        self.daemon.broken = True
        self.run_provider()
        await self.until(lambda: "container web: cannot be stopped: the daemon" in self.logged())
        await self.until(lambda: self.daemon.asked.count(f"POST /containers/{web}/stop") > 1)
        self.assertNotIn("nothing is stopped", self.logged())

    async def test_a_client_that_comes_before_the_stop(self) -> None:
        web = self.put_sleeper()
        self.service.is_behind = True  # it has not read the file, so nothing is stopped yet
        await self.provides("10.88.0.6:80 down")
        change_constants(self, sleep, _PAUSE=1000)
        asked = self.service.asked
        await self.until(lambda: self.service.asked > asked)  # by the last look
        self.assertEqual(await self.wake("/web"), 204)
        await self.until(lambda: "down" not in self.text())
        self.assertNotIn(f"POST /containers/{web}/stop", self.daemon.asked)

    async def test_sockets_that_are_none(self) -> None:
        for option in ("--socket", "--wake"):
            self.run_provider(option, "tcp:1")
            with self.assertRaisesRegex(MuxError, f"{option}: 'tcp:1' is no UNIX socket; write"):
                await self.provided.running
            self.provided.running.addErrback(lambda _: None)  # it has been seen


class UsageTests(CommandTestCase):
    def test_options_of_the_provider(self) -> None:
        out = self.told(0, self.run_main("provider", "docker", "--help"))
        for option in ("--write FILE", "--rules FILE", "--network NAME", "--allow-label KEY"):
            self.assertIn(option, out)
        for words, complaint in (
            (("doker",), "there is no provider 'doker'; did you mean 'docker'?"),
            (("consul",), "there is no provider 'consul' (there are docker, gateway)"),
            (("podman",), "write docker, with --socket unix:/run/podman/podman.sock"),
            (("docker",), "the following arguments are required: --write"),
            (("docker", "--write", "x", "--allow-label", "server"), "invalid choice: 'server'"),
        ):
            err = self.told(2, self.run_main("provider", *words))
            self.assertIn(complaint, err)
