"""Whether what a provider watches answers, as the service says it: both are programs."""

import contextlib
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import Child
from tests.support.docker import DockerPlayed
from tests.support.folders import make_folder
from tests.support.kubernetes import KubernetesPlayed
from tests.support.peers import reactor
from txmux.net.http import RequestFailedError, request

pytestmark = pytest.mark.by_turns


class SourcesTest(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.rules = self.folder / "rules.ini"
        self.socket = self.folder / "txmux.sock"
        self.rules.write_text(
            f"[txmux]\ninclude = p/*.ini\nadmin = unix:{self.socket}\n"
            "[listen public]\nendpoint = tcp:0:interface=127.0.0.1\ndefault = close\nroutes_from = own\n"
        )
        self.file = self.folder / "p/own.ini"
        self.name = f"provider {self.file}"
        self.service = Child("txmux", "run", self.rules)
        self.addCleanup(self.service.end)

    async def answer(self, path: str) -> bytes:
        answer = await request(
            *(reactor, "GET", f"http://x{path}", {}),
            seconds=20,
            most=1 << 20,
            address=str(self.socket),
        )
        return answer.body

    async def sources(self) -> list[Any]:
        while True:
            with contextlib.suppress(RequestFailedError):
                return [*json.loads(await self.answer("/api/status"))["sources"]]
            await deferLater(reactor, 0.1)

    async def until(self, are_so: Callable[[list[Any]], bool]) -> list[Any]:
        while not are_so(sources := await self.sources()):
            await deferLater(reactor, 0.1)
        return sources

    async def follow(self, played: Any, why: str, name: str, *options: str) -> None:
        await maybeDeferred(played.leave)
        paths = f"--write={self.file}", f"--rules={self.rules}"
        provider = Child("txmux", "provider", name, *paths, *options)
        self.addCleanup(provider.end)
        (row,) = await self.until(bool)
        self.assertEqual((row["source"], row["up"], row["age"]), (self.name, False, None))
        self.assertIn(why, row["why"])
        played.listen()
        (row,) = await self.until(lambda rows: rows[0]["up"])
        self.assertEqual(row, {"source": self.name, "up": True, "age": 0, "why": ""})
        await played.leave()
        (row,) = await self.until(lambda rows: not rows[0]["up"])
        self.assertIn(why, row["why"])
        (again,) = await self.until(lambda rows: rows[0]["age"] > row["age"])
        self.assertFalse(again["up"])
        provider.process.send_signal(signal.SIGKILL)
        provider.wait()
        await self.until(lambda rows: rows == [])
        self.assertEqual(self.service.output.count(f"{self.name}: good again"), 1)

    async def test_daemon_of_docker(self) -> None:
        socket = self.folder / "docker.sock"
        played = DockerPlayed(self, socket)
        wake = self.folder / "wake.sock"
        options = f"--socket=unix:{socket}", f"--wake=unix:{wake}"
        await self.follow(played, f"the daemon at {socket}: ", "docker", *options)

    async def test_api_of_a_cluster(self) -> None:
        played = KubernetesPlayed(self)
        await self.follow(played, f"the API at {played.url}: ", "gateway", f"--api={played.url}")
