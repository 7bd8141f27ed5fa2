"""Reloads leave nothing behind that takes memory."""

import gc
from collections import Counter
from typing import Any

from tests.support.supervised import LISTEN, SupervisedTestCase

_READING = ("txmux.rules.reading", "txmux.detection.registry", "twisted.plugin")


class GarbageTest(SupervisedTestCase):
    """What belongs to other rules is freed with them, and not only when garbage is looked for."""

    def garbage(self) -> Counter[str]:
        """Count what was made to read rules and only looking for garbage frees, by its type; services of other tests may be there."""
        self.addCleanup(gc.set_debug, gc.get_debug())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = [type(one) for one in gc.garbage]
        gc.garbage.clear()
        return Counter(
            f"{kind.__module__}.{kind.__name__}"
            for kind in kinds
            if kind.__module__.startswith(_READING)
        )

    async def reload(self, number: int, error: str = "") -> None:
        more = f"[route r{number}]\nmatch = ssh\nbackend = close\n"
        self.write(f"{LISTEN}{more}{error}")
        report: Any = await self.running.reload()
        self.assertEqual(report.ok, not error)

    async def test_freed(self) -> None:
        """Rules, and what was made to read them, are freed without a look for garbage; so are those that have errors."""
        await self.run_service(LISTEN)
        await self.reload(0)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        gc.freeze()  # other tests' services, of which the reactor may still know
        await self.reload(1)
        await self.reload(2, "[what]\n")
        await self.reload(3)
        self.assertEqual(self.garbage(), Counter())
