"""A provider whose daemon the test plays."""

from argparse import ArgumentParser
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.docker import NETWORK, DockerPlayed, inspected
from tests.support.folders import make_folder
from tests.support.peers import reactor
from txmux.errors import MuxError
from txmux.providers.docker.provider import docker
from txmux.providers.writer import ProviderWriter

RULES = """
[txmux]
include = *.provided
[listen public]
endpoint = 127.0.0.1:8443
"""


class ProviderTest(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.folder = make_folder(self)
        (self.folder / "rules.ini").write_text(RULES)
        self.file = self.folder / "docker.provided"
        self.daemon = DockerPlayed(self, self.folder / "docker.sock")

    def run_provider(self, *more: str, ask: Callable[..., Awaitable[Any]] | None = None) -> None:
        async def refused(*_: object) -> None:
            raise MuxError("there is no service")

        parser = ArgumentParser()
        docker.options(parser)
        arguments = parser.parse_args(["--socket", f"unix:{self.folder}/docker.sock", *more])
        writer = ProviderWriter(reactor, self.file, self.folder / "rules.ini", ask or refused)
        self.running: Deferred[Any] = Deferred.fromCoroutine(docker.run(reactor, arguments, writer))
        self.running.addErrback(lambda failure: failure.trap(CancelledError))
        self.addCleanup(writer.stop)
        self.addCleanup(self.end)

    def end(self) -> Deferred[Any]:
        self.running.cancel()
        return self.running

    async def written(self, is_so: Callable[[str], bool]) -> str:
        while not (self.file.exists() and is_so(self.file.read_text())):
            await deferLater(reactor, 0.01)
        return self.file.read_text()

    async def test_labels_become_routes(self) -> None:
        self.daemon.put(inspected("web", {"txmux.match": "tls sni=a.example"}))
        self.run_provider("--network", NETWORK)
        text = await self.written(lambda text: "web" in text)
        self.assertIn("[route web]\nmatch = tls sni=a.example\nbackend = web\n", text)
        self.assertIn("[backend web]\nserver = 10.88.0.6:80\n", text)
        self.assertEqual([*self.folder.glob("*.provided*"), *self.folder.glob(".*")], [self.file])
