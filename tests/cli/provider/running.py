from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase

from tests.support.kit import change_constants, make_folder, reactor
from txmux.cli.provider import writer as writing
from txmux.cli.provider.writer import ProviderWriter

_RULES = """
[txmux]
include = *.provided
[listen public]
endpoint = 127.0.0.1:8443
routes_from = *
"""


class PlayedProvider:
    """Runs one provider, beside rules that include its file.

    Attributes:
        ask: Asks the service, which is played, too; see `RulesWriter`.
    """

    ask: Callable[..., Any]

    def __init__(self, test: TestCase, provider: Any) -> None:
        self._provider, self._clean = provider, test.addCleanup
        self.folder = make_folder(test)
        (self.folder / "rules.ini").write_text(_RULES)
        self.file = self.folder / f"{provider.name}.provided"
        change_constants(test, writing, _EVERY=0.1)
        events = test.enterContext(capturedLogs())
        self.logged = lambda: "\n".join(map(eventAsText, events))

    def start(self, *words: str) -> Callable[[], Deferred[Any]]:
        parser = ArgumentParser()
        self._provider.options(parser)
        parser.set_defaults(write=self.file)
        keys = getattr(self._provider, "listen_keys", ())
        rules = self.folder / "rules.ini"
        writer = ProviderWriter(reactor, self.file, rules, self.ask, listen_keys=keys)
        work = self._provider.run(reactor, parser.parse_args(words), writer)
        running: Deferred[Any] = Deferred.fromCoroutine(work)
        self.running = running.addErrback(lambda failure: failure.trap(CancelledError))

        def end() -> Deferred[Any]:
            writer.stop()
            running.cancel()
            return running

        self._clean(end)
        return end

    async def until(self, is_so: Callable[[], object]) -> None:
        while not is_so():
            assert not self.running.called, self.running.result
            await deferLater(reactor, 0.01)

    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""

    async def written(self, text: str, *, gone: str = "nothing of this") -> None:
        await self.until(lambda: text in self.text() and gone not in self.text())
