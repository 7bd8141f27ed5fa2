import itertools
import math
import os
import random
import re
import resource
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from string import Template
from unittest import SkipTest
from xml.etree import ElementTree as ET

import pytest
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import children, machine
from benchmarks.__main__ import published
from benchmarks.bar import BAR, STRETCH, Goal
from benchmarks.chart import SHOWN, chart
from benchmarks.children import BenchmarkError, Child
from benchmarks.counting import interval
from benchmarks.cuts import PEERS
from benchmarks.machine import congestion_controls
from benchmarks.measures import MEASURES, counted
from benchmarks.measures.day import KINDS
from benchmarks.measures.latency import percentiles
from benchmarks.proxies import PROXIES, chosen
from benchmarks.report import markdown
from benchmarks.results import FIGURES, Results, Spread
from tests.support.kit import change_constants, leave_unmeasured, require_program, run_text

_CHECKOUT = Path(__file__).parent.parent
_SVG = "{http://www.w3.org/2000/svg}"


def results() -> Results:
    samples: dict[str, dict[str, list[float | None]]] = {
        "connection.cpu": {
            "haproxy-auto": [80.0, 82.0, 70.0],
            "haproxy-splice": [60.0, 900.0, 70.0],
            "txmux": [120.0, 1800.0, 105.0],
        },
        "bulk.rate": {"haproxy-auto": [10.0], "haproxy-splice": [12.0], "txmux": [18.0]},
        "memory.idle": {"txmux": [3.5]},
    }
    return Results({"CPU": "some"}, 3, samples=samples, notes={"Envoy": "left out"})


class ResultsTests(SynchronousTestCase):
    def test_figures(self) -> None:
        # The best configuration is the one with the best median, be that the least or the most.
        self.assertEqual(results().best("connection.cpu", "haproxy"), "haproxy-splice")
        self.assertEqual(results().best("bulk.rate", "haproxy"), "haproxy-splice")
        self.assertIsNone(results().best("bulk.rate", "envoy"))
        # A ratio is made within each round, so what strikes both in one round does not matter; a round that one lacks does not count.
        found = results()
        self.assertEqual(found.median("connection.cpu", "txmux"), 120.0)
        self.assertEqual(found.ratio("connection.cpu", "txmux", "haproxy"), Spread(2.0, 1.5, 2.0))
        found.add(chosen(["haproxy-splice"])[0], {"connection.cpu": 70.0}, 6)
        found.add(chosen(["txmux"])[0], {"connection.cpu": 70.0}, 5)
        found.add(chosen(["txmux"])[0], {"connection.cpu": 280.0}, 6)
        self.assertEqual(found.ratio("connection.cpu", "txmux", "haproxy"), Spread(2.0, 1.5, 4.0))
        self.assertIsNone(found.ratio("memory.idle", "txmux", "haproxy"))
        # Written results can be read.
        self.assertEqual(Results.from_json(results().to_json()), results())

    def test_goals(self) -> None:
        # A goal is met at its limit; less is better, or more; what was not measured is neither met nor missed.
        for goal, met in (
            (Goal("connection.cpu", 2.0, "haproxy"), True),
            (Goal("connection.cpu", 1.99, "haproxy"), False),
            (Goal("connection.cpu", 1.0, "nginx"), None), (Goal("bulk.rate", 1.5, "haproxy"), True),
            (Goal("bulk.rate", 1.51, "haproxy"), False), (Goal("memory.idle", 3.5), True),
            (Goal("memory.idle", 3.4), False), (Goal("held", 1), None),
        ):  # fmt: skip
            self.assertIs(goal.is_met(results()), met, goal)
        # They name known figures and programs.
        for goal in (*BAR, *STRETCH):
            self.assertIn(goal.figure, FIGURES)
            if goal.against:
                self.assertTrue(chosen([goal.against]))

    def test_markdown(self) -> None:
        # The report has the machine, the goals, all medians with their multiples and spread, and what was left out.
        text = markdown(results())
        for line in (
            "| CPU | some |",
            "| one connection, CPU | bar | at most 1.60 × HAProxy | 2.00 × HAProxy | 1.50–2.00 | **missed** |",  # noqa: RUF001
            "| bulk, throughput (Gbit/s) | 10.0 (0.83) | 12.0 (1.00) | 18.0 (1.50) |",
            "| idle connection, memory (KiB) | – | – | 3.5 |",  # noqa: RUF001
            "- Envoy: left out",
        ):
            self.assertIn(line, text.splitlines())
        self.assertNotIn("quick", text)
        # One table compares machines, each by its name and date, and all figures follow for each.
        one, other = (results(), results())
        one.machine = {"date": "2026-11-25", "CPU": "Intel(R) Xeon(R) Processor, 2 cores"}
        other.machine = {"date": "2026-11-26", "CPU": "AMD EPYC, 2 cores", "system": "its own"}
        del other.samples["memory.idle"]
        text = markdown(other, one)
        for line in (
            "| date | 2026-11-26 | 2026-11-25 |",
            "| system | its own | – |",  # noqa: RUF001
            "| measure | kind | goal | txmux: AMD EPYC, 2026-11-26 | least to most |  | txmux: Intel Xeon, 2026-11-25 | least to most |  |",
            "| idle connection, memory | bar | at most 4.0 KiB | – | – | not measured | 3.5 KiB | 3.5–3.5 | met |",  # noqa: RUF001
            "**AMD EPYC, 2026-11-26**",
            "| bulk, throughput (Gbit/s) | 10.0 (0.83) | 12.0 (1.00) | 18.0 (1.50) |",
        ):
            self.assertIn(line, text.splitlines())
        self.assertEqual((one.maker(), other.maker(), Results().maker()), ("intel", "amd", "a"))

    def test_published(self) -> None:
        # What is published replaces what there is of the same maker's processors, and is shown beside that of others.
        folder = Path(self.mktemp())
        found = [
            published(folder, [Results({"CPU": f"{cpu}, 2 cores", "date": "2026-11-25"})])
            for cpu in ("B 1", "A 1", "B 2")
        ]
        self.assertEqual([one.name()[:3] for one in found[-1]], ["A 1", "B 2"])
        names = ["chart.svg", "figures-a.json", "figures-b.json", "table.md"]
        self.assertEqual(sorted(path.name for path in folder.iterdir()), names)
        # What Debian's package manager says of this Python is told, and nothing where there is none.
        found_by, told = "python3.11-minimal: /usr/bin/python3.11", "python3.11-minimal 3.11.2-6"
        self.patch(machine, "_output", lambda words: found_by if "--search" in words else told)
        self.assertEqual(machine.package(), " (python3.11-minimal 3.11.2-6)")
        self.patch(machine, "_output", lambda _: subprocess.run(["false"], check=True))
        self.assertEqual(machine.package(), "")

    def test_chart(self) -> None:
        """The chart is well-formed, a bar is as long as its value, and a line across it goes from the least to the most that has room."""
        panels = ET.fromstring(chart(results())).findall(f"{_SVG}g")
        titles = [panel.findtext(f"{_SVG}text") for panel in panels]
        wanted = ["bulk, throughput", "one connection, CPU", "idle connection, memory"]
        self.assertEqual(titles, wanted)
        theirs, ours = (float(bar.attrib["width"]) for bar in panels[1].findall(f"{_SVG}rect"))
        self.assertAlmostEqual(ours / theirs, 120 / 70, places=1)
        lines = [line.attrib["d"] for line in panels[1].findall(f"{_SVG}path")]
        self.assertEqual(len(lines), 2)
        edges = [[float(edge) for edge in re.findall(r"[MH]([0-9.]+)", line)] for line in lines]
        for (first, last), (begin, width) in zip(
            edges, ((116, theirs * 60 / 70), (116, ours * 105 / 120)), strict=True
        ):
            self.assertAlmostEqual(first, begin + width, places=0)
            self.assertAlmostEqual(last, begin + 1.5 * ours, places=0)

        for key in SHOWN:
            self.assertLess(len(FIGURES[key].title), 40)  # so that it fits
        ET.fromstring(chart(Results()))
        self.assertIn("0 rounds.", markdown(Results()))

    def test_percentiles(self) -> None:
        half, most = percentiles([float(n) for n in range(1001)])
        self.assertEqual((round(half), round(most)), (500, 991))
        # Where a median is with 95 % certainty: all but one time of twenty, whatever is measured.
        chance = random.Random(4)
        within = 0
        for _ in range(400):
            below, above = interval([chance.expovariate(1) for _ in range(100)])
            within += below <= math.log(2) <= above
        self.assertGreater(within, 0.93 * 400)
        self.assertEqual(interval([1.0, 3.0]), (1.0, 3.0))

    def test_chosen_peers(self) -> None:
        # A peer is chosen by its own name or its program's; an unknown one is told, with all there are.
        self.assertEqual([p.key for p in chosen(["haproxy"])], ["haproxy-auto", "haproxy-splice"])
        self.assertEqual([p.key for p in chosen(["txmux-portable"])], ["txmux-portable"])
        self.assertEqual(chosen([]), list(PROXIES))
        self.assertIn("there are envoy, ", str(self.assertRaises(BenchmarkError, chosen, ["x"])))
        # There are configurations of proxies only.
        folder = _CHECKOUT / "benchmarks" / "peers"
        used = {proxy.template for proxy in PROXIES} | {"backend-nginx.conf"}
        used |= {name for proxy in PROXIES for name in (proxy.tls, proxy.udp) if name}
        used |= {kind.template for kind in KINDS.values()}
        used |= {peer.template for peer in PEERS} | {"cuts-servers.conf"}
        self.assertEqual({path.name for path in folder.iterdir()}, used)
        for path in folder.iterdir():
            self.assertTrue(Template(path.read_text()).is_valid(), path)

    def test_chosen_ports(self) -> None:
        """A port is chosen once as long as it is meant for something, whether or not that listens; then it is free again."""
        ports = itertools.cycle(range(30_000, 30_060))
        change_constants(self, children, _PORTS=ports, _PORT_COUNT=60)
        with children.free_ports(3) as servers:
            for _ in range(60):
                with children.free_ports(2, socket.SOCK_DGRAM) as found:
                    self.assertEqual(len({*servers, *found}), 5)
            with self.assertRaisesRegex(BenchmarkError, "58 ports are needed, and"):
                children.free_ports(58).__enter__()
        with children.free_ports(6) as found:
            self.assertEqual(len({*found}), 6)


class CountTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def test_files(self) -> None:
        # Each file has what there was since the one before, and counts once.
        counter = counted.Instructions(self.folder)
        for name, total in (("7", 2000), ("7.1", 500), ("9", 1000)):
            text = f"events: Ir\nsummary: {total}\n16 3\ntotals: {total}\n"
            (self.folder / name).write_text(text)
        self.assertEqual(counter.so_far(), {7: 2.5, 9: 1.0})
        (self.folder / "7.2").write_text("events: Ir\ntotals: 250\n")
        self.assertEqual(counter.so_far(), {7: 2.75, 9: 1.0})
        # Threads count for their process; what is no call does not count.
        self.patch(counted, "threads", {7: [7, 8]}.__getitem__)
        lines = 'read(3, "x", 1) = 1\nclose(3) = 0\n+++ exited with 0 +++\n'
        for thread in (7, 8, 9):
            (self.folder / f"thread.{thread}").write_text(lines)
        self.assertEqual(counted.Calls(self.folder).so_far([7]), {7: 4.0, 9: 2.0})

    def test_ends_act_in_turn(self) -> None:
        """Where nothing is between them, client and server exchange what they expect."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            turns: list[None] = []
            ends = counted.Ends(server.getsockname()[1], server, partial(turns.append, None))
            ends.connection()
            self.assertEqual(len(turns), 5)
            with ends.connect() as client:
                peer, _ = server.accept()
                with peer:
                    ends.request(client, peer)
                    client.sendall(b"?")
                    self.assertRaises(BenchmarkError, counted.expect, peer, b"!")


class ChildTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_program("taskset")

    def test_figures_and_end(self) -> None:
        """CPU time and memory are those of all that a child has started, and nothing of it remains."""
        log = Path(self.mktemp())
        with Child(["sh", "-c", "echo begun; while :; do :; done"], log, [_a_core()]) as child:
            children.eventually(lambda: child.last_words() == "begun", "it has begun")
            children.eventually(lambda: child.cpu() > 0, "it takes CPU time")
            self.assertGreater(child.memory(), 0)
            self.assertFalse(child.has_ended())
        self.assertTrue(child.has_ended())
        self.assertEqual((child.cpu(), child.memory()), (0, 0))

    def test_cost(self) -> None:
        # The CPU time of a program that has ended is what it took: that of a loop, and not of its sleep.
        program = (
            "import time\ntime.sleep(1.5)\nend = time.process_time() + 0.2\n"
            "while time.process_time() < end: pass\nprint(time.process_time())"
        )
        spent = children.cost_of([sys.executable, "-S", "-c", program], [_a_core()])
        self.assertGreaterEqual(spent, 0.2)
        self.assertLess(spent, 1.5)
        # A program has settled when it works no more, and its CPU time is that of all of its processes.
        program = (
            "import os, time\nos.fork()\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)"
        )
        log = Path(self.mktemp())
        with Child([sys.executable, "-S", "-c", program], log, [_a_core()]) as child:
            # More than one of them can have used: the kernel rounds what it lists.
            self.assertGreater(child.settled(), 0.45)
        # It is an error with the last words of the program.
        for run, command, words in (
            (children.cost_of, "echo 'line 3: what?' >&2; exit 2", "sh gave 2: line 3: what?"),
            (children.output_of, "echo 'no route'; echo '}'; exit 3", "sh gave 3: no route"),
        ):
            failure = self.assertRaises(BenchmarkError, run, ["sh", "-c", command], [_a_core()])
            self.assertEqual(str(failure), words)


@pytest.mark.whole
@pytest.mark.by_turns(each=True)
class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        # What is measured is to be what it is for users; other tests see to the coverage.
        leave_unmeasured(self)

    def bench(
        self, *arguments: str | Path, module: str = "benchmarks"
    ) -> subprocess.CompletedProcess[str]:
        return run_text(sys.executable, "-m", module, *arguments, cwd=_CHECKOUT, seconds=1200)

    def require_all(self) -> None:
        for program in ("taskset", "nginx", "redis-server", "openssl"):
            require_program(program)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if len(os.sched_getaffinity(0)) < 2 or 0 <= most < 20_000:
            raise SkipTest("it needs two CPU cores, and 20,000 descriptors")

    def measured(self, *names: str, peer: str = "txmux") -> Results:
        """Give what a run finds; of its figures the same table is made again."""
        self.require_all()
        with tempfile.TemporaryDirectory() as made:
            done = self.bench(
                *("--quick", "--rounds", "1", "--only", ",".join(names)),
                *("--peers", peer, "--output", made),
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            (figures,) = Path(made).glob("figures-*.json")
            found = Results.from_json(figures.read_text())
            self.assertEqual(Path(made, "table.md").read_text(), done.stdout)
            ET.parse(Path(made, "chart.svg"))
            self.assertEqual(self.bench("--again", figures).stdout, done.stdout)
        wanted = {figure.key for m in MEASURES if m.name in names for figure in m.figures}
        self.assertEqual(found.samples.keys(), wanted)
        for key in wanted:
            self.assertGreater(found.median(key, peer) or 0, 0, key)
        return found

    def test_each_figure(self) -> None:
        for found in (
            self.measured("tls", "start", "workers", "large", "detection", "day"),
            self.measured("memory", peer="txmux-portable"),
        ):
            self.assertEqual(found.notes.keys() - {"machine"}, set())

    def test_streams(self) -> None:
        require_program("iperf3")
        can_nest = congestion_controls()[1] and os.geteuid() == 0
        self.measured("stream", *(["bulk-other"] if can_nest else []))

    def test_measures_of_datagrams_find_all_figures_and_no_flow_is_lost(self) -> None:
        require_program("dnsperf")
        found = self.measured("udp-bulk", "udp-questions", "udp-held")
        self.assertEqual(found.median("udp.held", "txmux"), 900)

    def test_unknown_name_lists_known_ones(self) -> None:
        done = self.bench("--only", "bulk,speed")
        self.assertEqual(done.returncode, 1)
        told = r"\Abench: no measure is called 'speed'; there are bulk, .*\n\Z"
        self.assertRegex(done.stderr, told)

    def test_other_programs(self) -> None:
        """An upgrade; a flood, of which each proxy is told, and nothing sent to forged addresses; what counting costs, and how far that is certain; and shared limits, for which nobody is refused."""
        self.require_all()
        # Batches are as large as the difference that the default allows.
        upgrade = "--most 20000 --connections 60 --streams 3 --rounds 2 --workers 2 --uneven 60"
        flooded = r"\n\| %s \| [0-9.]+% \| [0-9.]+% \| .* \| 0 bytes \|\n"
        for module, options, *patterns in (
            ("upgrade", upgrade, r"(?s)(\n\| 60 \|.*){2}"),
            ("flood_datagrams", "--addresses 2000 --rate 2000 --least 0",
             *(flooded.replace("%s", name) for name in ("nginx `stream`", "txmux"))),
            ("counting", "--pairs 4 --connections 10", r"by itself \| (?!0\.?0* )[0-9.]+ \|",
             r"by the pairs -?[0-9.]+ to -?[0-9.]+ %; load"),
            ("cluster", "--rounds 1",
             *(rf"(?m)^{case} .*refused 0 of 100$" for case in ("no Redis", "answers", "hangs", "gone"))),
        ):  # fmt: skip
            done = self.bench(*options.split(), module=f"benchmarks.{module}")
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
            for pattern in patterns:
                self.assertRegex(done.stdout, pattern)


def _a_core() -> int:
    return min(os.sched_getaffinity(0))
