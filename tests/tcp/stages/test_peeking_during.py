"""Routes that serve clients at some times only."""

from __future__ import annotations

import time
from datetime import datetime

import attrs

from tests.support.mux import MuxTestCase, backend_at
from txmux.rules.embedding import route
from txmux.rules.reading.route import period


class DuringTest(MuxTestCase):
    """What the clock on the wall says when a client is accepted."""

    def office_mux(self, moment: str) -> int:
        now = datetime.fromisoformat(moment).timestamp()
        self.patch(time, "time", lambda: now)
        office = route("ssh", backend_at(self.backend_port()), name="office")
        hours = (period("mon-fri 08:00-18:00 Europe/Paris"),)
        return self.mux([attrs.evolve(office, during=hours), route("ssh", "close", name="closed")])

    async def test_matches_within_the_period_and_stays_connected_after_it(self) -> None:
        client = await self.connect(self.office_mux("2026-11-20T17:59+01:00"), b"SSH-2.0-a\r\n")
        server = await self.backend.peer()
        self.patch(
            time, "time", lambda: datetime.fromisoformat("2026-11-20T18:01+01:00").timestamp()
        )
        client.send(b"more")
        await server.has(15)
        client.close()
        server.close()
        await self.assert_logged(route="office", reason="done")

    async def test_next_route_matches_outside_the_period(self) -> None:
        await self.connect_until_lost(self.office_mux("2026-11-20T18:00+01:00"), b"SSH-2.0-a\r\n")
        await self.assert_logged(route="closed", reason="denied")
