import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.control import attention
from txmux.control.gauges import Gauges
from txmux.control.overrides import WorkersCondition
from txmux.control.report import Report
from txmux.control.rules_index import RulesIndex
from txmux.net.sockets.queues import Overflow
from txmux.net.tls.validity import Validity
from txmux.processes.opener import HELPER_ENDED
from txmux.rules.lint.secrets import open_secrets, secret_files
from txmux.rules.model import Backend, Refusal, Route, Rules, Settings, TlsSettings
from txmux.rules.problems import Problem
from txmux.rules.reading.parser import load, parse
from txmux.serving.listen_addresses import listen_addresses
from txmux.telemetry import attention_rows as rows
from txmux.telemetry.attention import MEMORY_RAN_OUT, OF_FEW, AttentionItem, AttentionRow
from txmux.telemetry.attention_rows import ROWS
from txmux.telemetry.formatting import plural
from txmux.telemetry.sources import SourceState


class BackendTest(SynchronousTestCase):
    now = 10.0

    def items(
        self, *states: str, used: bool = True, hold: bool = False, spare: str = "", keeps: float = 0
    ) -> list[AttentionItem]:
        servers: list[dict[str, Any]] = [
            {
                "server": f"10.0.0.{at}:80", "state": state, "why": f"why {at}",
                "since": None if state == "unresolved" else float(at),
            }
            for at, state in enumerate(states, 1)
        ]  # fmt: skip
        held = {"until": None} if hold else None
        documents: Any = [{"name": "web", "hold": held, "held": 0, "servers": servers}]
        if spare:
            its = [{"server": "s", "state": spare, "why": "", "since": None}]
            documents.append({"name": "other", "hold": None, "held": 0, "servers": its})
        other = Backend("other", ())
        web = Backend("web", (), fallback=other if spare else Refusal.CLOSE, hold=keeps)
        routes = (Route("all", (), web),) if used else ()
        rules = Rules(Path("x.ini"), Settings(), (), routes, {"web": web, "other": other})
        return [*attention.backends(documents, RulesIndex(rules), self.now)]

    def test_some_servers_cannot_serve(self) -> None:
        (item,) = self.items("up", "down")
        text = "backend web: 1 of 2 servers is down: 10.0.0.2:80"
        link, do = "?backend=web#servers", "txmux servers web"
        expected = AttentionItem(
            "warning", "backend", text, "why 2", 2.0, link, do=do, subject="web", is_logged=True,
            section="backend web",
        )  # fmt: skip
        self.assertEqual(item, expected)
        (item,) = self.items("ejected", *["down"] * 6, "up")
        self.assertIn("7 of 8 servers are down: 10.0.0.1:80 is ejected, ", item.text)
        self.assertTrue(item.text.endswith("10.0.0.5:80, and 2 more"))
        self.assertEqual(item.cause, "why 7")

    def test_no_server_is_up(self) -> None:
        for states in (("down", "failing"), ("silent", "drain"), ("unresolved",)):
            (item,) = self.items(*states)
            self.assertEqual(item.level, "critical")
            self.assertIn("backend web: no server is up: 10.0.0.1:80", item.text)
        # A reload may come in any pause of a document.
        document: Any = {"name": "old", "hold": None, "held": 0, "servers": [{"state": "down"}]}
        rules = Rules(Path("x.ini"), Settings(), (), (), {})
        self.assertEqual([*attention.backends([document], RulesIndex(rules), self.now)], [])
        # The advice for servers that were taken out on purpose is how they come back.
        drained = "undo it: txmux drain web --ready"
        disabled = "use it: remove 'down' from the rules, then txmux reload"
        rows = ("drain", drained), ("maintenance", drained), ("disabled", disabled)
        for state, advice in rows:
            (item,) = self.items(state)
            self.assertEqual((item.level, item.do), ("note", f"txmux servers web; to {advice}"))

    def test_what_turns_no_client_away_is_not_critical(self) -> None:
        """Servers that somebody took out are meant, clients of a backend that is held wait, and an unused backend has none."""
        self.assertEqual(self.items("up", "drain", "maintenance", "disabled"), [])
        self.assertEqual([item.level for item in self.items("maintenance", "drain")], ["note"])
        self.assertEqual([item.level for item in self.items("down", hold=True)], ["warning"])
        self.assertEqual([item.level for item in self.items("down", used=False)], ["warning"])
        (item,) = self.items("down", spare="up")
        text = "backend web: no server is up: 10.0.0.1:80; its clients go to its fallback"
        self.assertEqual((item.level, item.text), ("warning", text))
        self.assertEqual(self.items("down", spare="drain")[0].level, "critical")
        # Until 'hold' is over, whoever comes waits, whether or not somebody does by now.
        self.assertEqual(self.items("unresolved", "failing", keeps=30.0)[0].level, "warning")
        self.assertEqual(self.items("unresolved", keeps=9.0)[0].level, "critical")
        self.assertEqual(self.items("failing", keeps=30.0)[0].level, "warning")
        self.now = 31.0
        self.assertEqual(self.items("failing", keeps=30.0)[0].level, "critical")


class OthersTest(SynchronousTestCase):
    def test_clients_that_wait(self) -> None:
        held = {"a": math.inf, "b": 70.0, "over": 1.0}
        waiting = attention.clients_that_wait(held, {"a": 1, "over": 1, "down": 2}, 10.0)
        self.assertEqual(
            [(item.level, item.text, item.do) for item in waiting],
            [
                ("note", "backend a: held by an operator: 1 client waits", "txmux release a"),
                ("note", "backend b: held by an operator, for 1 min more: 0 clients wait",
                 "txmux release b"),
                ("note", "backend over: 1 client waits for a server", "txmux servers over"),
                ("note", "backend down: 2 clients wait for a server", "txmux servers down"),
            ],
        )  # fmt: skip
        # A unit that is not taken is named with its file, line and text, and so is a name that nobody brings.
        folder = make_folder(self)
        items = [(item.text, item.cause) for item in attention.untaken_units(_with_units(folder))]
        unit = f"{folder}/units/a.ini"
        self.assertEqual(items[0][0], f"{unit} is not taken: it is not served")
        self.assertRegex(items[0][1], rf"^{unit}:1: a line needs '='")
        missing = "has a [backend box] now, so these clients are closed"
        text = f"[listen x] default: no file that 'include' finds {missing}"
        self.assertEqual(items[1:], [(text, "")])

    def test_what_is_not_served_and_who_stays(self) -> None:
        missing = [
            "no worker serves", "[listen a]: no client is accepted", "[backend b]: as before",
        ]  # fmt: skip
        found = [(item.level, item.what, item.text) for item in attention.not_served(missing)]
        self.assertEqual(found, [("critical", "workers", "no worker serves")])
        one = "1 connection stays", "1 connection goes"
        two = "2 connections stay", "2 connections go"
        for count, (stay, go) in ((1, one), (2, two)):
            (item,) = attention.left_behind(count, 0)
            self.assertEqual(item.text, f"{stay} in workers that an upgrade has replaced")
            (item,) = attention.left_behind(0, count)
            self.assertEqual(item.text, f"{go} on in workers whose supervisor has ended")
        # Each is named, unless none answers, which is an item of its own.
        condition = WorkersCondition(silent=[(2, 77)])
        (item,) = attention.silent_workers(condition)
        self.assertEqual((item.level, item.text), ("warning", "worker 2 does not answer"))
        self.assertIn("kill -KILL 77", item.do)
        condition = attrs.evolve(condition, none_answers=True)
        self.assertEqual([*attention.silent_workers(condition)], [])

    def test_reload_that_is_refused_or_not_complete(self) -> None:
        """What is in force, and what to do; files that have changed since are an item of their own where a reload would read them."""
        errors = ("a", "b", "c")
        for changes, state, do, others in (
            ("", "failed, the previous rules are in force", "txmux check x.ini, then txmux reload", []),
            ("1 route new", "is not complete", "see the log", ["rules"]),
        ):  # fmt: skip
            last = 1.0, Report(ok=False, errors=errors, changes=changes)
            item, *more = attention.rules_not_in_force(last, "x.ini", has_changed=True)
            self.assertEqual((item.text, item.do), (f"the last reload {state}", do))
            self.assertEqual((item.level, item.cause), ("warning", "a; and 2 more"))
            self.assertEqual([one.what for one in more], others)

    def test_what_is_over_in_a_moment_is_not_reported(self) -> None:
        """Nothing is said of a start, nor of what has changed while it was asked for."""
        closed, idle = "[listen a]: no client is accepted", "[backend b]: no server is up"
        missing = ["no worker serves", "no worker answers", closed, idle]
        calm, worst = WorkersCondition(), WorkersCondition(none_serves=True, none_answers=True)
        unsettled = WorkersCondition(is_unsettled=True)
        for before, now, reported in (
            (calm, calm, [closed, idle]), (worst, worst, missing), (worst, calm, [closed, idle]),
            (calm, worst, [closed, idle]), (unsettled, calm, [idle]), (calm, unsettled, [idle]),
        ):  # fmt: skip
            self.assertEqual(attention.lasting(missing, before, now), reported)

    def test_restarts_that_repeat(self) -> None:
        """Three within five minutes, of a worker or of the process that starts them: on a slow machine each takes a while."""
        restarts = [(0.0, 1, "old"), *((200.0 * n, n % 2, f"reason {n}") for n in range(1, 4))]
        self.assertEqual([*attention.replaced_workers(restarts, 600.0)], [])
        restarts = [(100.0 * n, number, f"reason {n}") for n in range(3) for number in (0, 2)]
        items = [*attention.replaced_workers(restarts, 299.0)]
        self.assertEqual({(item.level, item.cause) for item in items}, {("warning", "reason 2")})
        who = "the process that starts workers", "worker 2"
        texts = [f"{its} was replaced 3 times within five minutes" for its in who]
        self.assertEqual([item.text for item in items], texts)
        self.assertEqual([*attention.replaced_workers(restarts, 300.0)], [])
        restarts = [(1.0 * n, 0, "cannot be started: no room") for n in range(4)]
        (item,) = attention.replaced_workers(restarts, 9.0)
        text = "the process that starts workers could not be started 4 times within five minutes"
        self.assertEqual(item.text, text)
        # They are counted for as long as they are recent by a clock that nobody sets, and have the time of day of now.
        state: Any = SimpleNamespace(ended_workers=[(100.0 + n, 1, "reason") for n in range(3)])
        state.troubles, state.refused_calls = list, {}
        for now in (1000.0, 999_999.0):
            (item,) = attention.processes(state, now, 150.0)
            self.assertEqual((item.since, item.subject), (now - 50, "replaced 1"))
            self.assertEqual([*attention.processes(state, now, 1500.0)], [])

    def test_connections_lost_with_several_workers(self) -> None:
        how = "was killed by SIGKILL"
        for lost, told in (
            ((3, 1, 12), ", 16 connections lost in all"), ((3, 0, 0), ", 3 connections lost in all"),
            ((0, 0, 2), ", 2 connections lost"), ((0, 0, 0), ""),
        ):  # fmt: skip
            counts = (f", {plural(count, 'connection')} lost" if count else "" for count in lost)
            hows = [how + text for text in counts]
            (item,) = attention.replaced_workers([(1.0, 1, one) for one in hows], 9.0)
            self.assertEqual(item.cause, how + told)
            numbered = [(1.0, number, one) for number, one in enumerate(hows, 1)]
            (item,) = attention.ended_workers(numbered, 9.0)
            self.assertEqual(item.text, f"worker 3 {how}{told}; 2 others before")

    def test_queue_that_one_source_floods(self) -> None:
        """It is named where the rules limit nobody; without a flood, nobody is."""
        rules = parse("[listen a]\nendpoint = 127.0.0.1:1\n", "x")
        (address,) = listen_addresses(rules.listeners[0])
        flood = "; 1,612 new connections a second, 99 % from 192.0.2.1"
        ban = "keep it out: txmux ban 192.0.2.1 1h"
        for newest, cause, do in (
            ({}, "", "see who they are: txmux clients; add workers"),
            ({"": 1612.0, "192.0.2.1": 1600.0}, flood, f"see what it does: txmux clients; {ban}"),
        ):
            (item,) = attention.overflowed(rules, {address.key: Overflow(5, 1.0)}, newest)
            self.assertEqual(item.cause, f"5 attempts to connect dropped within a minute{cause}")
            self.assertTrue(item.do.startswith(do), item.do)

    def test_ended_workers(self) -> None:
        """For ten minutes: how, and what was lost with it; not twice where it is replaced again and again."""
        crash = 100.0, 2, "was killed by signal 11 (SIGSEGV), 3 connections lost"
        (item,) = attention.ended_workers([crash], 699.0)
        self.assertEqual((item.level, item.since), ("warning", 100.0))
        self.assertEqual(item.text, f"worker 2 {crash[2]}")
        self.assertEqual([*attention.ended_workers([crash], 700.0)], [])
        restarts = [crash, (110.0, 0, "ended"), *((120.0 + n, 1, "ended") for n in range(3))]
        (same,) = attention.ended_workers(restarts, 200.0)
        self.assertEqual(same.text, item.text)
        (more,) = attention.ended_workers(restarts, 420.0)  # one of three is too old
        self.assertIn("worker 1 ended", more.text)
        restarts = [crash, (101.0, 1, f"killed: {MEMORY_RAN_OUT}: 5 MiB"), (102.0, 1, "exited")]
        by_memory, others = attention.ended_workers(restarts, 200.0)
        self.assertEqual((by_memory.cause, by_memory.since), ("5 MiB", 101.0))
        text = "worker 1 exited, 3 connections lost in all; 1 other before"
        self.assertEqual((others.text, others.since), (text, 100.0))
        restarts = [(1.0, 1, "cannot be started: no room")]
        self.assertEqual([*attention.ended_workers(restarts, 2.0)], [])
        # The last one is the cause, for ten minutes; one that ends for another reason is an item of its own.
        limit = "the limit of the memory group is {} MiB"
        how = f"was killed by the kernel: memory had run out ({limit})"
        restarts = [(100.0, 1, how.format(96)), (150.0, 2, how.format(128)), (160.0, 1, "exited")]
        [item, other] = attention.ended_workers(restarts, 699.9)
        self.assertEqual(other.text, "worker 1 exited")
        text = "the kernel has killed 2 workers with their connections: memory had run out"
        cause = "memory had run out (the limit of the memory group is 128 MiB)"
        self.assertEqual((item.text, item.cause, item.since), (text, cause, 100.0))
        [item, _] = attention.ended_workers(restarts, 700.0)
        self.assertIn("killed 1 worker with its connections", item.text)
        self.assertEqual([*attention.ended_workers(restarts, 760.0)], [])

    def test_not_accepted(self) -> None:
        """A listener is served as long as one worker accepts."""
        missing = [
            "[listen full]: cannot accept: too many open files",
            "[listen shut]: no client is accepted",
            "[listen new]: no client is accepted",
            f"[listen taken]: cannot accept: too many open files{OF_FEW}",
            f"[listen over]: cannot accept: too many open files{OF_FEW}",
        ]
        lacks = "too many open files", 5.0
        short = dict.fromkeys(("full", "half", "taken"), lacks) | {"odd": ("", 5.0)}
        self.assertEqual(
            [
                (item.level, item.text, item.cause, item.since)
                for item in attention.not_accepted(missing, ["shut"], short)
            ],
            [
                ("critical", "listener full: cannot accept", "too many open files", 5.0),
                ("note", "listener shut: paused by an operator", "", None),
                ("critical", "listener new: no client is accepted", "", None),
                ("warning", "listener taken: cannot accept", f"too many open files{OF_FEW}", 5.0),
                ("warning", "listener over: cannot accept", OF_FEW, None),
                ("warning", "listener half: one worker cannot accept connections; the others can", "too many open files", 5.0),
                ("warning", "listener odd: one worker cannot accept connections; the others can", "", 5.0),
            ],
        )  # fmt: skip
        # Of a program that cannot be started, its error is the cause: where that is from is in the log.
        traceback = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import y\nModuleNotFoundError: y'
        report = Report.refused(f"the new process exited with status 1\n{traceback}")
        [item] = attention.failed_upgrade((1.0, report))
        self.assertEqual(item.cause, "the new process exited with status 1; ModuleNotFoundError: y")
        lines = [f"line {number}" for number in range(1000)]
        [item] = attention.failed_upgrade((1.0, Report.refused("\n".join(["it ended", *lines]))))
        self.assertEqual(item.cause, f"it ended; 995 lines, see the log; {'; '.join(lines[-5:])}")

    def test_each_item_says_what_to_do(self) -> None:
        """Each item, with sentences of other parts as these parts write them."""
        made: list[AttentionRow] = []
        make = AttentionRow.item

        def make_and_note(row: AttentionRow, *args: Any, **names: Any) -> AttentionItem:
            made.append(row)
            return make(row, *args, **names)

        self.patch(AttentionRow, "item", make_and_note)
        folder = make_folder(self)
        folder.chmod(0o711)
        token = folder / "token"
        token.write_text("x" * 43)
        token.chmod(0o644)
        text = f"[txmux]\nadmin = 127.0.0.1:1\nadmin_token = {token}\n[listen a]\nendpoint = :3\ndefault = web\n"
        rules = parse(f"{text}[backend web]\nserver = 127.0.0.1:2\n", "rules.ini")
        failed = 1.0, Report(ok=False, errors=("no",))
        down: dict[str, Any] = {"server": "s", "state": "down", "why": "no", "since": 1.0}
        document: Any = {"name": "web", "hold": None, "held": 0, "servers": [down]}
        index, short = RulesIndex(rules), ("no", 1.0)
        condition = WorkersCondition(silent=[(1, 7)])
        restarts = [(1.0, 1, f"killed: {MEMORY_RAN_OUT}: too little")] * 3
        outside = SourceState("bans redis", False, 1.0, 90.0, True, "no", "x")  # noqa: FBT003 - a row
        gauges = Gauges(
            descriptors=(9, 10), certificates=[("r", valid("a.pem", 0)), ("r", valid("b.pem", 99)), ("r", valid("c.pem", 99, 50))], troubles=["a.pem: no"], unread=["users: no"],
            stale={("web", "s"): (9.0, "no")}, outside=[outside], lost_lines={"log x: no": 1, "log y: no": 0},
            newest={"": 9.0}, flooded=1, ports={("web", "s"): ("no", 1, 1.0), ("web", "t"): (OF_FEW, 1, 1.0)},
            handovers={"/x": ("no", 3, 1.0, True), "/y": ("no", 1, 1.0, False)},
        )  # fmt: skip
        half: Any = {**document, "servers": [down, {**down, "state": "up"}]}
        drained: Any = {**document, "servers": [{**down, "state": "drain"}]}
        items = [
            *attention.backends([document], index, 9.0), *attention.backends([half], index, 9.0),
            *attention.backends([drained], index, 9.0),
            *attention.not_accepted(["[listen a]: x", "[listen c]: x"], ["b"], {"c": short, "d": short}),
            *attention.not_accepted([f"[listen e]: x{OF_FEW}"], [], {}),
            *attention.overflowed(rules, {one.key: Overflow(1, 1.0) for one in listen_addresses(rules.listeners[0])}, {}),
            *attention.doubted_servers({("web", "127.0.0.1:1"): "reset"}),
            *attention.not_served([attention.NONE_SERVES, attention.NONE_ANSWERS, "the service is shutting down"]),
            *attention.clients_that_wait({"a": math.inf}, {"b": 1}, 9.0), *attention.silent_workers(condition),
            *attention.replaced_workers(restarts, 9.0), *attention.ended_workers([*restarts, (1.0, 2, "ended")], 9.0),
            *attention.refused_calls({"ptrace": (1.0, 1)}),
            *attention.problems(rows.HELPER_GONE, [f"{HELPER_ENDED}: restart the service"], ": "),
            *attention.failing_steps({"look": (1.0, "no")}), *attention.left_behind(1, 1),
            *attention.rules_not_in_force(None, "rules.ini", has_changed=True),
            *attention.untaken_units(_with_units(make_folder(self))), *attention.failed_upgrade(failed),
            *attention.unusable_answers(["worker 1: count: 'x' is 1"]),
            *attention.rules_not_in_force(failed, "rules.ini", has_changed=True),
            *attention.secrets(open_secrets(rules, secret_files(rules)), "the file of tokens has an error"),
            *attention.measured(gauges, rules, 9.0),
            *attention.measured(Gauges(newest={"": 9e9}, flooded=1), rules, 9.0),
        ]  # fmt: skip
        self.assertEqual([item for item in items if not item.do or not item.text], [])
        self.assertEqual({row.what for row in ROWS} - {item.what for item in items}, {"limits"})
        left = {row.text for row in ROWS if row not in made}
        self.assertEqual(left, {rows.LIMIT_REFUSES.text, rows.HEADERS_WRONG.text})

    def test_whose(self) -> None:
        """What is about a unit has its file as owner, or its author; so have servers in short form that no other owner uses."""
        folder = make_folder(self)
        (folder / "units").mkdir()
        text = "[listen {0}]\nendpoint = :{1}\n[route {0}]\nmatch = any\nunder = {0}\nbackend = 127.0.0.1:{2}\n"
        for name, port, server in (("a", 2, 1), ("b", 3, 2), ("c", 4, 2)):
            (folder / f"units/{name}.ini").write_text(text.format(name, port, server))
        main = folder / "rules.ini"
        listener = "[listen x]\nendpoint = :1\ndefault = 127.0.0.1:3\n"
        main.write_text(f"[txmux]\ninclude = units/*.ini\n{listener}")
        with (folder / "units/a.ini").open("a") as more:
            more.write(
                "[listen d]\nendpoint = :5\ndefault = d\nsilent = 127.0.0.1:4\n"
                "[backend d]\nserver = 127.0.0.1:8\nfallback = 127.0.0.1:6\n"
                "[route d]\nmatch = any\nunder = d\nbackend = 127.0.0.1:3\n"
            )
        rules = load(main)
        file, other = str(folder / "units/a.ini"), str(folder / "units/b.ini")
        rules = attrs.evolve(rules, files=attrs.evolve(rules.files, authors={"": 0, other: 1001}))
        index = RulesIndex(rules)
        whose = index.owner_of
        servers = [f"backend 127.0.0.1:{port}" for port in (1, 4, 6)]
        for section in ("listen a", "route a", "backend d", *servers, f"unit {file}"):
            self.assertEqual(whose(section), file, section)
        self.assertEqual(whose(f"unit {file} [unit u]"), file)
        self.assertEqual(whose("listen b"), "user 1001")
        shared = [f"backend 127.0.0.1:{port}" for port in (2, 3)]
        for section in ("", "listen x", *shared, "route gone"):
            self.assertEqual(whose(section), "", section)
        [item] = attention.secrets([Problem("", 1, "listen a", "", "open; run: x")], "")
        self.assertEqual((item.text, item.do, whose(item.section)), ("open", "run: x", file))
        lacking = [f"[route {name}] terminate_tls: {n}" for n in range(7) for name in "ax"]
        few = [*attention.few_of_each_owner(lacking, index)]
        self.assertEqual((few[:5], few[5]), (lacking[:10:2], f"{file}: 2 more of these"))
        self.assertEqual(few[6:], lacking[1::2])
        warnings = [Problem(file, n, f"route {name}", "", "") for n in range(7) for name in "ax"]
        few = [*attention.few_of_each_owner(warnings, index)]
        self.assertEqual((few[4], few[5]), (str(warnings[8]), f"{file}: 2 more of these"))
        self.assertEqual(few[6:], [*map(str, warnings[1::2])])

    def test_items(self) -> None:
        day = 86400
        end = TlsSettings((Path("a.pem"), Path("x.pem")), managed=("a.example",))
        route = Route("r", (), None, terminate_tls=end)
        rules = Rules(Path("x.ini"), Settings(), (), (route,))
        gauges = Gauges(
            descriptors=(900, 1000),
            certificates=[
                ("r", valid("a.pem", 2 * day)), ("r", valid("a.pem", 2 * day, day)), ("r", valid("x.pem", 2 * day)), ("r", valid("y.pem", day)),
                ("r", valid("z.pem", 16 * day)), ("r", valid("a.pem", 99 * day, 4 * day)),
                ("r", valid("z.pem", day, name="CN=x")), ("s", valid("ca.pem", day, key="tls_client_ca", name="CN=old")),
                ("s", valid("ca.pem", 99 * day, key="tls_client_ca", name="CN=new")),
                ("t", valid("ca.pem", day, key="tls_client_ca", name="CN=old")),
                ("t", valid("crl.pem", 7 * day, key="tls_client_crl", name="CN=new")),
                ("t", valid("crl.pem", 2 * day, key="tls_client_crl", name="CN=old")),
                ("t", valid("crl.pem", 0, key="tls_client_crl", name="CN=x")), ("u", valid("l.pem", 0, key="tls_client_crl", name="CN=x")),
            ],
            troubles=["it burns"],
            to_servers=[("web", valid("c.pem", day + 7200))],
            stale={("web", "a.example:80"): (90.0, "no answer"), ("web", "b"): (None, "why")},
        )  # fmt: skip
        self.assertEqual(
            [(item.level, item.what, item.text, item.cause) for item in attention.measured(gauges, rules, day)],
            [
                ("warning", "certificates", "the certificate x.pem of route r ends in 1 day, on 1970-01-03 00:00 UTC", ""),
                ("critical", "certificates", "the certificate y.pem of route r ended on 1970-01-02 00:00 UTC", ""),
                ("critical", "certificates", "the certificate a.pem of route r becomes valid only in 3 days, on 1970-01-05 00:00 UTC", ""),
                ("critical", "certificates", "the certificate of 'CN=x' in the chain of z.pem of route r ended on 1970-01-02 00:00 UTC", ""),
                ("warning", "certificates", "the authority 'CN=old' in ca.pem of route s ended on 1970-01-02 00:00 UTC", ""),
                ("critical", "certificates", "the authority 'CN=old' in ca.pem of route t ended on 1970-01-02 00:00 UTC", ""),
                ("warning", "certificates", "the revocation list of 'CN=old' in crl.pem of route t ends in 1 day, on 1970-01-03 00:00 UTC", ""),
                ("warning", "certificates", "the revocation list of 'CN=x' in crl.pem of route t is missing, or signed with another key", ""),
                ("critical", "certificates", "the revocation list of 'CN=x' in l.pem of route u is missing, or signed with another key", ""),
                ("warning", "certificates", "the certificate c.pem of backend web ends in 2 h, on 1970-01-02 02:00 UTC", ""),
                ("warning", "renewal", "it burns", ""),
                ("warning", "descriptors", "file descriptors are running out: 900 of 1000 are open", ""),
                ("warning", "names", "backend web: a.example:80: addresses 1 min 30 s old", "no answer"),
            ],
        )  # fmt: skip
        for opened, count in ((799, 0), (800, 1)):
            found = [*attention.measured(Gauges(descriptors=(opened, 1000)), rules, day)]
            self.assertEqual(len(found), count)

    def texts(self, *states: SourceState, **stale: tuple[float | None, str]) -> list[str]:
        addresses = {(name, f"{name}.example:80"): value for name, value in stale.items()}
        gauges = Gauges(outside=states, stale=addresses)
        rules = parse("[listen a]\nendpoint = :1\n", "x")
        return [item.text for item in attention.measured(gauges, rules, 1000.0)]

    def state(self, name: str, failing: float, *, is_overdue: bool = True) -> SourceState:
        effect = f"no {name.partition(' ')[0]}"
        return SourceState(name, False, None, failing, is_overdue, "refused", effect)  # noqa: FBT003 - a row

    def test_redis_that_several_ask(self) -> None:
        limits, bans = (self.state(f"{kind} redis://a:6379", 5.0) for kind in ("limits", "bans"))
        other = self.state("crowdsec http://a", 70.0)
        both = "limits redis://a:6379, bans redis://a:6379"
        crowdsec = "crowdsec http://a: no good answer for 1 min 10 s; no crowdsec"
        expected = [f"{both}: no good answer for 5 s; no limits; no bans", crowdsec]
        self.assertEqual(self.texts(limits, bans, other), expected)
        # Both servers and all names are one item, also before a minute has passed; what they do not know is another.
        one, two = (self.state(f"names 10.0.0.{n}:53", 9.0, is_overdue=False) for n in (1, 2))
        gone = 60.0, "the name server 10.0.0.1:53: no answer within 2 s"
        text = "names 10.0.0.1:53, names 10.0.0.2:53: no good answer for 9 s; no names"
        self.assertEqual(self.texts(one, two), [])
        self.assertEqual(self.texts(one, two, new=(None, gone[1])), [])
        unknown = 90.0, "there is no such name"
        self.assertEqual(
            self.texts(one, two, a=gone, b=gone, c=unknown, d=unknown),
            [
                "backend d: d.example:80: addresses 1 min 30 s old; also c (c.example:80)",
                f"{text} for backend b (b.example:80), backend a (a.example:80)",
            ],
        )
        for server in ("10.0.0.2:53", "10.0.0.1:5"):
            (first, *_) = self.texts(self.state(f"names {server}", 90.0), a=gone)
            self.assertEqual(first, "backend a: a.example:80: addresses 1 min old")

    def test_names_of_several_owners(self) -> None:
        """What fails alike is one item of each, so that none stands for another's."""
        folder = make_folder(self)
        backend = "[backend {0}]\nserver = {0}.example:80\n".format
        (folder / "u.ini").write_text(backend("b") + backend("c"))
        text = "[txmux]\ninclude = u*.ini\n[listen x]\nendpoint = :1\n"
        (folder / "rules.ini").write_text(text + backend("a"))
        stale = {(name, f"{name}.example:80"): (60.0, "it is gone") for name in "abc"}
        items = attention.measured(Gauges(stale=stale), load(folder / "rules.ini"), 1000.0)
        of_a, of_others = sorted(item.text for item in items)
        self.assertEqual(of_a, "backend a: a.example:80: addresses 1 min old")
        self.assertEqual(
            of_others, "backend c: c.example:80: addresses 1 min old; also b (b.example:80)"
        )


def _with_units(folder: Path) -> Rules:
    """Return rules with a unit that is not taken, and a name that only another one would bring."""
    (folder / "units").mkdir()
    (folder / "units/a.ini").write_text("nothing")
    main = "[txmux]\ninclude = units/*.ini\n[listen x]\nendpoint = :1\ndefault = box\n"
    (folder / "rules.ini").write_text(main)
    return load(folder / "rules.ini")


def valid(
    file: str, ends: float, begins: float = -9e5, *, key: str = "terminate_tls", name: str = ""
) -> Validity:
    return Validity(key, file, name, begins, ends)
