"""What the page costs the service."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.admin.asking import AdminCase
from txmux.live.inside import Inside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class CostTest(AdminCase):
    """Each process that has connections is asked as little as can be."""

    async def test_asked_once(self) -> None:
        """One page asks a process for each thing once: to count what many connections have moved takes it longest."""
        asked: Counter[str] = Counter()
        handlers: Any = Inside.handlers.fget  # type: ignore[attr-defined]

        def counting(inside: Inside) -> Mapping[str, Callable[..., Any]]:
            found = handlers(inside)

            def counted(kind: str) -> Callable[..., Any]:
                def handle(**values: Any) -> Any:
                    asked[kind] += 1
                    return found[kind](**values)

                return handle

            return {kind: counted(kind) for kind in found}

        self.patch(Inside, "handlers", property(counting))
        self.start(use=self.virtual())  # the history is not told anything meanwhile
        asked.clear()  # what was counted at the start, for it
        told = await self.ask("GET", "/")
        self.assertEqual(told.status, 200)
        self.assertEqual(asked, Counter(["count", "connections", "addresses", "recent"]))
