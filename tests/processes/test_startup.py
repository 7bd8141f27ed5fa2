"""What waits for the reactor to run, which may never do so."""

from __future__ import annotations

import gc
import weakref

from tests.support.service import ServiceTestCase
from txmux import MuxService
from txmux.rules.reading.parser import parse


class NeverRunningTests(ServiceTestCase):
    """A service of a program that gives up before it runs the reactor."""

    def test_forgotten(self) -> None:
        """When it has been stopped, nothing of it is kept, nor what it has opened."""
        rules = parse("[listen public]\nendpoint = 127.0.0.1:0\n", self.folder / "rules.ini")
        service = MuxService(rules)
        kept = weakref.ref(service)
        service.startService()
        service.stopService()
        del service
        gc.collect()
        self.assertIsNone(kept())
