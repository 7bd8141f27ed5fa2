from collections import Counter
from contextlib import redirect_stdout
from functools import partial
from html import unescape
from io import StringIO
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.test_flows import QUERY, RULES
from tests.admin.test_growth import view_of
from tests.cli.support import unconfined
from tests.support.growth import AT_ALL, growth
from tests.support.kit import AdminCase, turn
from tests.support.supervised import note_questions
from txmux.cli import main
from txmux.control.control import Control
from txmux.features.page.gather import gather, page_explanation
from txmux.features.page.query import PageQuery
from txmux.features.page.view import View, render
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.processes.supervisor.worker import Worker
from txmux.telemetry.explanation import ExplainedRoute, Explanation


class ExplanationTest(SynchronousTestCase):
    def test_routes_that_were_not_asked_are_folded(self) -> None:
        rows = [
            ExplainedRoute(wins=False, name="a", match="http", verdict="no at byte 1", answer="no"),
            ExplainedRoute(wins=True, name="b", match="ssh", verdict="match", answer="match"),
            ExplainedRoute(wins=False, name="c", match="2 lines", verdict="", answer="not asked"),
            ExplainedRoute(wins=False, name="", match="tls", verdict="", answer="not asked"),
        ]
        found = page_explanation(Explanation("listener x", rows, [("decision", "b")]))
        lines = "listener x\n   route  match  says\n   a      http   no at byte 1\n>  b      ssh    match\n\ndecision  b"
        self.assertEqual("\n".join(found.text.splitlines()), lines)
        ((title, text),) = found.folded
        self.assertEqual(title, "not asked: 1 route")
        self.assertEqual(text.splitlines()[1:], ["  c      2 lines", "         tls"])
        found = page_explanation(Explanation("", [rows[1], *rows[:1] * 100], []))
        self.assertEqual([title for title, _ in found.folded], ["no: 100 routes"])


class CostTest(AdminCase):
    async def test_asked_once(self) -> None:
        """One page asks a process for each thing once: to count what many connections have moved takes it longest."""
        await self.start(use=self.virtual())  # the history is not told anything meanwhile
        asked = note_questions(self)
        self.assertEqual((await self.ask("GET", "/")).status, 200)
        kinds = [
            "count", "connections", "addresses", "status", "missing", "clients",
            "ping",  # the list of clients may take longer than a halted worker is waited for
        ]  # fmt: skip
        self.assertEqual(Counter(message.kind for message, _ in asked), Counter(kinds))

    async def test_few_at_a_time(self) -> None:
        """Dozens of browsers do not keep the supervisor from hearing its workers, which it would take for dead."""
        ask, making, most = Worker.ask, 0, 0

        def counting(worker: Worker, message: Message, **values: Any) -> Deferred[Any]:
            nonlocal making, most
            answer = ask(worker, message, **values)
            if message is messages.ADDRESSES:
                making += 1
                most = max(most, making)
                answer.addBoth(ended)
            return answer

        def ended(result: Any) -> Any:
            nonlocal making
            making -= 1
            return result

        await self.start()
        self.patch(Worker, "ask", counting)
        asking = [Deferred.fromCoroutine(self.ask("GET", "/")) for _ in range(12)]
        self.assertEqual({told.status for told in await gatherResults(asking)}, {200})
        self.assertLessEqual(most, 4)

    async def test_recognised(self) -> None:
        """A worker names the matcher of an unrecognised client; what a compromised one proposes instead is not shown."""
        await self.start()
        await self.connect_until_lost(b"SSH-2.0-x\r\n")
        while not (await self.get("/api/recent")).json:
            await turn()
        known, unknown = b'data-copy="match = ssh"', b'data-copy="match = payload text=SSH-"'
        self.assertIn(known, (await self.get("/")).body)
        ask = Worker.ask
        proposed: list[Any] = []

        def proposing(worker: Worker, message: Message, **values: Any) -> Deferred[Any]:
            if message is messages.RECOGNISE:
                return succeed(proposed)
            return ask(worker, message, **values)

        self.patch(Worker, "ask", proposing)
        for line in ("match = any\nbackend = 192.0.2.1:1", "match = tls sni=~.*"):
            proposed[:] = [line]
            page = (await self.get("/")).body
            self.assertIn(unknown, page)
            self.assertNotIn(b"192.0.2.1:1", page)

    async def test_bytes_explained_as_by_the_command(self) -> None:
        """A datagram and a stream, in the same lines."""
        await self.start(rules=RULES % 9)
        page = unescape((await self.get(f"/?explain={QUERY.hex()}")).body.decode())
        rules, out = str(self.file), StringIO()
        with redirect_stdout(out), unconfined():
            self.assertEqual(main(["explain", rules, "--hex", QUERY.hex()]), 0)
        for line in filter(None, out.getvalue().splitlines()):
            self.assertIn(line, page)
        self.assertIn("decision  at datagram 1: route names, to ", page)
        self.assertIn("no at byte 1", page)

    async def test_ipv4_inside_ipv6_is_the_client_that_the_service_sees(self) -> None:
        rules = "[listen a]\nendpoint = tcp:0:interface=127.0.0.1\n[route near]\nmatch = any\nfrom = 192.0.2.1\nbackend = reset\n"
        await self.start(rules=rules)
        shown = (await self.ask("GET", "/?explain=61&from=%3A%3Affff%3A192.0.2.1")).body.decode()
        self.assertIn("route near, reset", shown)
        told = (await self.post("/api/explain", {"hex": "61", "from": "::ffff:192.0.2.1"})).json
        self.assertEqual(told["streams"][0]["listeners"][0]["from"], "192.0.2.1")


async def _page(control: Control) -> object:
    query = PageQuery.of({})
    return [*render(View(await gather(control, query), query))]


@pytest.mark.by_turns(each=True)
class GrowthTests(SynchronousTestCase):
    def test_page(self) -> None:
        for what in ("routes", "servers"):
            self.assertLessEqual(growth(partial(view_of, _page, what)), AT_ALL, what)
