"""Measures txmux beside its peers, all of them in turn, and prints the medians as Markdown."""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bar import OURS
from benchmarks.bench import Bench
from benchmarks.chart import chart
from benchmarks.children import BenchmarkError
from benchmarks.machine import described, measured_commit
from benchmarks.measures import COUNTED, MEASURES
from benchmarks.proxies import PROXIES, chosen
from benchmarks.report import markdown
from benchmarks.results import Results
from benchmarks.servers import find_program, running_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Measure

_NEEDED = ("taskset", "timeout", "nginx", "redis-server")
_DESCRIPTORS = 20_000
_BUSY = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    options = parsed(arguments)
    try:
        if options.again:
            results = [Results.from_json(path.read_text()) for path in options.again]
        else:
            measures = chosen_measures(options.only, COUNTED if options.count else MEASURES)
            results = [run(options.rounds, measures, options.peers, quick=options.quick)]
    except (BenchmarkError, OSError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    if options.output:
        results = published(options.output, results)
    print(markdown(*results), end="")


def published(folder: Path, results: Sequence[Results]) -> list[Results]:
    """Write table, chart and figures; give also those that are there already, of other machines."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in results:
        (folder / f"figures-{one.maker()}.json").write_text(one.to_json())
    found = [Results.from_json(path.read_text()) for path in sorted(folder.glob("figures-*.json"))]
    (folder / "table.md").write_text(markdown(*found))
    newest = max(found[::-1], key=lambda one: one.machine.get("date", ""))
    (folder / "chart.svg").write_text(chart(newest))
    return found


def run(rounds: int, measures: Sequence[Measure], peers: Sequence[str], *, quick: bool) -> Results:
    """Measure.

    Args:
        rounds: How often.
        measures: What.
        peers: The names of the proxies, or of families of them; none are all of them.
        quick: Whether to do everything on a small scale.

    Raises:
        BenchmarkError: A name is unknown, or this machine is not fit for it.
    """
    proxies = chosen(peers)
    cores = prepared()
    results = Results(rounds=rounds, quick=quick, commit=measured_commit())
    for proxy in proxies:
        if proxy.path() is None:
            results.note(proxy.title, f"left out, since {proxy.program} is not installed")
    proxies = [proxy for proxy in proxies if proxy.path() is not None]
    results.machine = described(proxies)
    busy = os.getloadavg()[0]
    if busy > _BUSY:
        results.note(
            "machine", f"busy at the start, with a load of {busy:.1f}: the figures are noisy"
        )
    for number in range(1, rounds + 1):
        with tempfile.TemporaryDirectory(prefix="txmux-bench-") as made:
            folder = Path(made)
            folder.chmod(0o711)  # the web server gives up root, and has to reach its files
            with running_servers(folder, cores[1:]) as servers:
                # The order changes with each round, so that nobody always comes first.
                for measure, proxy in itertools.product(measures, proxies[:: (-1) ** (number - 1)]):
                    if number > measure.rounds or (measure.ours and proxy.key != OURS):
                        continue
                    say(f"round {number} of {rounds}: {measure.name}, {proxy.key}")
                    bench = Bench(folder, servers, cores[:1], cores[1:], quick)
                    try:
                        results.add(proxy, measure.measure(bench, proxy), number)
                    except BenchmarkError as error:
                        bench.notes.append(str(error).replace(f"{folder}/", ""))
                    for note in bench.notes:
                        say(f"  {note}")
                        results.note(f"{measure.name}, {proxy.title}", note)
    return results


def prepared() -> list[int]:
    """Keep this process, which makes load too, off the first core, and give it its descriptors.

    Returns:
        The CPU cores: the first one is for the proxies.

    Raises:
        BenchmarkError: This machine is not fit for it.
    """
    if not sys.platform.startswith("linux"):
        raise BenchmarkError("it needs Linux: CPU time and memory are read from /proc")
    for program in _NEEDED:
        if find_program(program) is None:
            raise BenchmarkError(f"{program} is not installed, and nothing can be measured without")
    # What has been started is ended on the way out, which a signal would not go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("it needs two CPU cores: one for the proxy, one for the load")
    os.sched_setaffinity(0, cores[1:])
    # Users' Python starts from the bytecode of the time before.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < _DESCRIPTORS:
        raise BenchmarkError(
            f"it needs {_DESCRIPTORS} descriptors, and `ulimit -Hn` says {most}: raise that limit"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    return cores


def chosen_measures(names: Sequence[str], measures: Sequence[Measure] = MEASURES) -> list[Measure]:
    """Give the measures of these names; all, if there are no names.

    Raises:
        BenchmarkError: A name is unknown.
    """
    known = [measure.name for measure in measures]
    for name in names:
        if name not in known:
            raise BenchmarkError(f"no measure is called {name!r}; there are {', '.join(known)}")
    return [one for one in measures if one.name in names or not (names or one.by_name)]


def say(what: str) -> None:
    """Tell how far it is, beside the output."""
    print(what, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=at_least_one, default=3, metavar="N", help="how often to measure all (3)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="on a small scale, to see that it works"
    )
    parser.add_argument(
        "--count",
        action="store_true",
        help="instructions and system calls, which are the same on all machines, in place of time",
    )
    parser.add_argument(
        "--only",
        type=names,
        default=[],
        metavar="MEASURE,…",
        help=", ".join(m.name for m in (*MEASURES, *COUNTED)),
    )
    parser.add_argument(
        "--peers", type=names, default=[], metavar="PEER,…", help=", ".join(p.key for p in PROXIES)
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write table, chart and figures; the table has also what is there of processors of other makers",
    )
    parser.add_argument(
        "--again",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing, but take such files of figures",
    )
    return parser.parse_args(arguments)


def at_least_one(text: str) -> int:
    """Read a number that is not zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one round is needed")
    return number


def names(text: str) -> list[str]:
    """Read names with commas between them."""
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    main()
