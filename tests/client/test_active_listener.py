from typing import Any

import attrs

from tests.support.mux import MuxTestCase
from txmux.rules.embedding import route


class EventsTest(MuxTestCase):
    async def test_end_is_one_where_it_is_logged(self) -> None:
        for log, end in ((True, ["end"]), (False, [])):
            port = self.mux([attrs.evolve(route("ssh", "close"), log=log)])
            events: list[Any] = []
            self.factory.runtime.events.listen(events.append)
            await self.connect_until_lost(port, b"SSH-2.0-a\r\n")
            await self.until_so(lambda: not self.factory.connections)
            kinds = [event["event"] for event in events]
            self.assertEqual(kinds, ["begin", "decide", *end])
