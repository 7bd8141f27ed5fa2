"""Reloads and upgrades of txmux beside those of HAProxy and nginx, under the same load.

    python -m benchmarks.changes

In each run a fresh proxy leads 200 short connections a second to a server, and long streams, one more of which begins before each
change. It is changed so often, and then it is counted what clients noticed, and what is left of old processes. Exits with 0 if the
clients of txmux noticed nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from benchmarks.changes.report import markdown
from benchmarks.changes.run import Kind, Outcome, measure
from benchmarks.changes.services import SERVICES
from benchmarks.children import BenchmarkError
from benchmarks.machine import described

if TYPE_CHECKING:
    from collections.abc import Sequence

_USUAL = (
    Kind("reload", "reloads", 100, 0.1),
    Kind("upgrade", "upgrades", 10, 1.0, upgrade=True),
    Kind("limited", "upgrades, old processes have 5 s", 5, 6.5, upgrade=True, limit=5),
)
_PATIENT = {"settling": 15.0, "patience": 60.0, "at_once": 50.0}
"""It is run while the machine does other things, too."""
_QUICK = (
    Kind("reload", "reloads", 10, 0.1, **_PATIENT),
    Kind("upgrade", "upgrades", 2, 0.5, upgrade=True, **_PATIENT),
    Kind("limited", "upgrades, old processes have 1 s", 2, 1.5, upgrade=True, limit=1, **_PATIENT),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(prog="changes", description=__doc__.partition("\n")[0])
    keys = [service.key for service in SERVICES]
    options.add_argument("--quick", action="store_true", help="few changes, to see that it works")
    options.add_argument(
        "--only", default=",".join(keys), metavar="SERVICE,…", help=", ".join(keys)
    )
    names = [kind.key for kind in _USUAL]
    options.add_argument(
        "--kinds", default=",".join(names), metavar="KIND,…", help=", ".join(names)
    )
    options.add_argument("--output", type=Path, metavar="FOLDER", help="write table and figures")
    asked = options.parse_args(arguments)
    try:
        services = [SERVICES[keys.index(key)] for key in asked.only.split(",")]
    except ValueError as error:
        sys.exit(f"changes: {error}: there are {', '.join(keys)}")
    try:
        numbers = [names.index(key) for key in asked.kinds.split(",")]
    except ValueError as error:
        sys.exit(f"changes: {error}: there are {', '.join(names)}")
    kinds = [(_QUICK if asked.quick else _USUAL)[number] for number in numbers]
    machine = described({service.family: service.proxy() for service in services}.values())
    machine["load"] = f"{os.getloadavg()[0]:.1f} before the run"
    outcomes: dict[str, dict[str, Outcome]] = {}
    for kind in kinds:
        for service in services:
            print(f"{kind.times} {kind.title}: {service.title}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="txmux-changes-") as made:
                try:
                    outcome = measure(service, kind, Path(made))
                except (BenchmarkError, OSError) as error:
                    sys.exit(f"changes: {service.title}: {error}")
            outcomes.setdefault(kind.key, {})[service.key] = outcome
    text = markdown(machine, kinds, services, outcomes)
    if asked.output:
        figures = {key: {k: attrs.asdict(o) for k, o in by.items()} for key, by in outcomes.items()}
        whole = {"machine": machine, "outcomes": figures}
        (asked.output / "changes.json").write_text(json.dumps(whole, indent=1) + "\n")
        (asked.output / "changes.md").write_text(text)
    print(text, end="")
    ours = {service.key for service in services if service.family == "txmux"}
    sys.exit(not all(by[key].is_unnoticed() for by in outcomes.values() for key in ours))


if __name__ == "__main__":
    main()
