"""A provider that runs in this process, with a source that the test plays."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase

from tests.support.folders import make_folder
from tests.support.peers import reactor
from txmux.cli.provider import writer as writing
from txmux.cli.provider.writer import ProviderWriter

_RULES = """
[txmux]
include = *.provided
[listen public]
endpoint = 127.0.0.1:8443
routes_from = *
"""


class ProviderTestCase(TestCase):
    """Runs one provider, beside rules that include its file.

    Attributes:
        provider: The provider.
        ask: Asks the service, which is played, too; see `RulesWriter`.
    """

    provider: ClassVar[Any]
    ask: Callable[..., Any]

    def setUp(self) -> None:
        self.folder = make_folder(self)
        (self.folder / "rules.ini").write_text(_RULES)
        self.file = self.folder / f"{self.provider.name}.provided"
        self.patch(writing, "_EVERY", 0.1)
        logged = capturedLogs()
        events = logged.__enter__()
        self.addCleanup(logged.__exit__, None, None, None)
        self.logged = lambda: "\n".join(map(eventAsText, events))

    def start(self, *words: str) -> Callable[[], Deferred[Any]]:
        """Run it with these options; returns what ends it."""
        parser = ArgumentParser()
        self.provider.options(parser)
        parser.set_defaults(write=self.file)
        keys = getattr(self.provider, "listen_keys", ())
        rules = self.folder / "rules.ini"
        writer = ProviderWriter(reactor, self.file, rules, self.ask, listen_keys=keys)
        work = self.provider.run(reactor, parser.parse_args(words), writer)
        running: Deferred[Any] = Deferred.fromCoroutine(work)
        self.running = running.addErrback(lambda failure: failure.trap(CancelledError))

        def end() -> Deferred[Any]:
            writer.stop()
            running.cancel()
            return running

        self.addCleanup(end)
        return end

    async def until(self, is_so: Callable[[], object]) -> None:
        while not is_so():
            assert not self.running.called, self.running.result
            await deferLater(reactor, 0.01)

    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""

    async def written(self, text: str, *, gone: str = "nothing of this") -> None:
        await self.until(lambda: text in self.text() and gone not in self.text())
