from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed

from tests.support.mux import MuxTestCase
from txmux.rules.embedding import route


class EndTest(MuxTestCase):
    async def test_all_who_wait_for_the_last_connection(self) -> None:
        client = await self.connect(self.ssh_mux())
        await self.accepted()
        waiting = [self.factory.emptied() for _ in range(2)]
        freed: Deferred[None] = Deferred()
        self.factory.runtime.descriptors.call_when_freed(lambda: freed.callback(None))
        client.reset()
        for one in waiting:
            await one
        self.assertTrue(self.factory.emptied().called)
        self.assertTrue(freed.called)

    async def test_end_is_one_where_it_is_logged(self) -> None:
        """So it is one of the bad ends that are shown."""
        for log, end in ((True, ["end"]), (False, [])):
            port = self.mux([attrs.evolve(route("ssh", "close"), log=log)])
            events: list[Any] = []
            self.factory.runtime.events.listen(events.append)
            shown: list[list[str]] = []
            self.factory.runtime.bad_ends.report = lambda rows, shown=shown: succeed(
                shown.append(rows)
            )
            await self.connect_until_lost(port, b"SSH-2.0-a\r\n")
            await self.until_so(lambda: not self.factory.connections)
            kinds = [event["event"] for event in events]
            self.assertEqual((kinds, len(shown)), (["begin", "decide", *end], len(end)))
