"""The benchmark: what it makes of its figures, and a run on a small scale."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from string import Template
from unittest import SkipTest
from xml.etree import ElementTree as ET

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import children
from benchmarks.bar import BAR, STRETCH, Goal
from benchmarks.chart import chart
from benchmarks.children import BenchmarkError, Child
from benchmarks.measures.latency import percentiles
from benchmarks.proxies import PROXIES, chosen
from benchmarks.report import markdown
from benchmarks.results import FIGURES, Results
from tests.programs import require_program

_CHECKOUT = Path(__file__).parent.parent
_SVG = "{http://www.w3.org/2000/svg}"


def results() -> Results:
    """Make results of three rounds, of which txmux and HAProxy have one figure, and of which one was noisy."""
    samples = {
        "connection.cpu": {
            "haproxy-auto": [80.0, 82.0, 70.0],
            "haproxy-splice": [60.0, 900.0, 70.0],
            "txmux": [140.0, 105.0, 90.0],
        },
        "bulk.rate": {"haproxy-auto": [10.0], "haproxy-splice": [12.0], "txmux": [18.0]},
        "memory.idle": {"txmux": [3.5]},
    }
    return Results({"CPU": "some"}, 3, samples=samples, notes={"Envoy": "left out"})


class ResultsTests(SynchronousTestCase):
    """What is made of the figures."""

    def test_best(self) -> None:
        """The best configuration is the one with the best median, be that the least or the most."""
        self.assertEqual(results().best("connection.cpu", "haproxy"), 70.0)
        self.assertEqual(results().best("bulk.rate", "haproxy"), 12.0)
        self.assertIsNone(results().best("bulk.rate", "envoy"))

    def test_kept(self) -> None:
        """Results can be written down and read."""
        self.assertEqual(Results.from_json(results().to_json()), results())

    def test_goals(self) -> None:
        """A goal is met at its limit; less is better, or more; what was not measured is neither met nor missed."""
        for goal, met in (
            (Goal("connection.cpu", 1.5, "haproxy"), True),
            (Goal("connection.cpu", 1.49, "haproxy"), False),
            (Goal("connection.cpu", 1.0, "sslh"), None),
            (Goal("bulk.rate", 1.5, "haproxy"), True),
            (Goal("bulk.rate", 1.51, "haproxy"), False),
            (Goal("memory.idle", 3.5), True),
            (Goal("memory.idle", 3.4), False),
            (Goal("held", 1), None),
        ):
            self.assertIs(goal.is_met(results()), met, goal)

    def test_known_names(self) -> None:
        """Goals name figures and programs that there are."""
        for goal in (*BAR, *STRETCH):
            self.assertIn(goal.figure, FIGURES)
            if goal.against:
                self.assertTrue(chosen([goal.against]))

    def test_markdown(self) -> None:
        """The report has the machine, the goals, all medians with their multiples, and what was left out."""
        text = markdown(results())
        for line in (
            "| CPU | some |",
            "| one connection, CPU | bar | at most 2.00 × HAProxy | 1.50 × HAProxy | met |",  # noqa: RUF001
            "| bulk, throughput (Gbit/s) | 10.0 (0.83) | 12.0 (1.00) | 18.0 (1.50) |",
            "| idle connection, memory (KiB) | – | – | 3.5 |",  # noqa: RUF001
            "- Envoy: left out",
        ):
            self.assertIn(line, text.splitlines())
        self.assertNotIn("quick", text)

    def test_chart(self) -> None:
        """The chart is well-formed, and a bar is as long as its value, within its picture."""
        drawn = ET.fromstring(chart(results()))
        panels = drawn.findall(f"{_SVG}g")
        titles = [panel.findtext(f"{_SVG}text") for panel in panels]
        self.assertEqual(
            titles, ["bulk, throughput", "one connection, CPU", "idle connection, memory"]
        )
        theirs, ours = (float(bar.attrib["width"]) for bar in panels[1].findall(f"{_SVG}rect"))
        self.assertAlmostEqual(ours / theirs, 105 / 70, places=2)

    def test_empty(self) -> None:
        """Nothing measured is no error."""
        ET.fromstring(chart(Results()))
        self.assertIn("Medians of 0 rounds", markdown(Results()))

    def test_percentiles(self) -> None:
        """Percentiles are those of the times."""
        half, most = percentiles([float(n) for n in range(1001)])
        self.assertEqual((round(half), round(most)), (500, 991))


class PeersTests(SynchronousTestCase):
    """The proxies that are compared."""

    def test_chosen(self) -> None:
        """A peer is chosen by its own name or its program's; an unknown one is told, with all there are."""
        self.assertEqual([p.key for p in chosen(["haproxy"])], ["haproxy-auto", "haproxy-splice"])
        self.assertEqual([p.key for p in chosen(["txmux-portable"])], ["txmux-portable"])
        self.assertEqual(chosen([]), list(PROXIES))
        self.assertIn("there are envoy, ", str(self.assertRaises(BenchmarkError, chosen, ["x"])))

    def test_templates(self) -> None:
        """Each proxy has its configuration in the folder, and nothing else is there but the web server's."""
        folder = _CHECKOUT / "benchmarks" / "peers"
        used = {proxy.template for proxy in PROXIES} | {"backend-nginx.conf"}
        self.assertEqual({path.name for path in folder.iterdir()}, used)
        for path in folder.iterdir():
            self.assertTrue(Template(path.read_text()).is_valid(), path)


class ChildTests(SynchronousTestCase):
    """Child processes."""

    def test_figures_and_end(self) -> None:
        """CPU time and memory are those of all that a child has started, and nothing of it remains."""
        require_program("taskset")
        log = Path(self.mktemp())
        with Child(["sh", "-c", "echo begun; while :; do :; done"], log, [_a_core()]) as child:
            children.eventually(lambda: child.cpu() > 0, "it takes CPU time")
            self.assertGreater(child.memory(), 0)
            self.assertFalse(child.has_ended())
            self.assertEqual(child.last_words(), "begun")
        self.assertTrue(child.has_ended())
        self.assertEqual((child.cpu(), child.memory()), (0, 0))

    def test_failure(self) -> None:
        """A load generator that fails is told with its own last words."""
        require_program("taskset")
        command = ["sh", "-c", "echo 'no route'; echo '}'; exit 3"]
        failure = self.assertRaises(BenchmarkError, children.output_of, command, [_a_core()])
        self.assertEqual(str(failure), "sh gave 3: no route")


class RunTests(SynchronousTestCase):
    """The whole of it."""

    def bench(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it."""
        return subprocess.run(
            [sys.executable, "-m", "benchmarks", *arguments],
            cwd=_CHECKOUT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def test_unknown_name(self) -> None:
        """A name that there is not is told in one line, with those that there are."""
        done = self.bench("--only", "bulk,speed")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\Abench: no measure is called 'speed'; there are bulk, .*\n\Z"
        )

    def test_small_scale(self) -> None:
        """A run measures, and writes table, chart and figures, from which the same table is made again."""
        for program in ("taskset", "nginx", "redis-server"):
            require_program(program)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if len(os.sched_getaffinity(0)) < 2 or 0 <= most < 20_000:
            raise SkipTest("it needs two CPU cores, and 20,000 descriptors")
        with tempfile.TemporaryDirectory() as made:
            done = self.bench(
                *("--quick", "--rounds", "1", "--only", "memory"),
                *("--peers", "txmux-portable", "--output", made),
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            figures = Path(made, "figures.json")
            found = Results.from_json(figures.read_text())
            again = self.bench("--again", figures)
            self.assertEqual(Path(made, "table.md").read_text(), done.stdout)
            ET.parse(Path(made, "chart.svg"))
        self.assertEqual(again.stdout, done.stdout)
        self.assertEqual(found.notes.keys() - {"machine"}, set())
        for figure in ("memory.idle", "memory.undecided"):
            value = found.median(figure, "txmux-portable")
            self.assertIsNotNone(value)
            self.assertGreater(value or 0, 0)


def _a_core() -> int:
    """Give a CPU core that may be used."""
    return min(os.sched_getaffinity(0))
