"""A folder of `txmux/features` can be deleted: the core works without it, and says what is missing."""

import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

import txmux
from tests.support.examples import has_turn
from tests.support.kit import make_folder, run_text
from txmux.control.gauge import Gauge
from txmux.rules import installed, optional
from txmux.rules.feature import Feature
from txmux.rules.installed import FEATURES
from txmux.rules.model import DynamicNetworks, NetworkSet, Settings
from txmux.telemetry.attention import AttentionRow
from txmux.telemetry.counting.counter_rows import CounterRow
from txmux.telemetry.documents import AddedField

_PACKAGE = Path(txmux.__file__).parent
_FOLDERS = {
    path.name
    for path in (_PACKAGE / "features").iterdir()
    if path.is_dir() and not path.name.startswith("_")
}
_BEGINNINGS = {
    "txmux": "[txmux]", "listen": "[listen x]", "route": "[route y]\nmatch = ssh\nbackend = close",
    "backend": "[backend y]\nserver = 127.0.0.1:1",
}  # fmt: skip
_RULES = {
    "consul:": "[listen x]\nsilent = consul:web\n",
    "crowdsec:": "[listen x]\ndeny = crowdsec:http://127.0.0.1:8080\n",
    "geo:": "[listen x]\nallow = geo:country=FR\n",
    "as:": "[listen x]\nallow = as:AS64500\n",
    **{
        name: f"{_BEGINNINGS[kind]}\n{name} = {key.example}\n"
        for feature in FEATURES
        for kind, keys in feature.keys.items()
        for name, key in keys.items()
    },
}
"""What uses each word of a feature that rules may say."""
_RUN = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from txmux.cli import main

def run(*words):
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
    return status, said.getvalue()

json.dump((everything(), [run(*words) for words in json.load(sys.stdin)]), sys.stdout)
"""


def everything() -> list[str]:
    from txmux.admin.metrics import METRICS  # noqa: PLC0415 - another process runs this alone
    from txmux.admin.site import ADMIN  # noqa: PLC0415
    from txmux.cli import names_of_commands  # noqa: PLC0415
    from txmux.control.gauges import GAUGES  # noqa: PLC0415
    from txmux.telemetry import documents  # noqa: PLC0415
    from txmux.telemetry.attention_rows import every_row  # noqa: PLC0415
    from txmux.telemetry.counting.counter_groups import TOTALS  # noqa: PLC0415

    kinds = [one for one in vars(documents).items() if hasattr(one[1], "__required_keys__")]
    return [
        *names_of_commands(),
        *(one.path for one in ADMIN),
        *(f"stage {state}" for state in documents.STATES),
        *(f"metric {metric.name}" for metric in METRICS),
        *(f"cell {group.kind} {name}" for group in TOTALS for name in group.names),
        *(f"gauge {row.name}" for row in GAUGES),
        *(f"field {of} {one.name}" for of, its in kinds for one in documents.every_field_of(its)),
        *(f"column {column.title}" for column in documents.listeners().columns),
        *(f"item {row.what} {row.level} {row.when}" for row in every_row()),
    ]


def named_by(row: Any) -> Iterator[str]:
    if isinstance(row, CounterRow):
        yield from (f"cell {row.group} {name}" for name in row.names())
        yield from (f"metric {name}" for name in row.texts[:1])
    elif isinstance(row, Gauge):
        yield f"gauge {row.name}"
        yield from (f"metric {metric.name}" for metric in row.metrics)
    elif isinstance(row, AddedField):
        yield f"field {row.document.__name__} {row.field.name}"
        if row.field.column:
            yield f"column {row.field.column.title}"
    elif isinstance(row, AttentionRow):
        yield f"item {row.what} {row.level} {row.when}"
    else:
        raise TypeError(row)


def names_of(feature: Feature) -> Iterator[str]:
    yield from feature.commands
    yield from (resource.path for resource in feature.resources())
    yield from (f"stage {stage.state}" for stage in feature.stages)
    for row in feature.rows():
        yield from named_by(row)


class WithoutTests(SynchronousTestCase):
    def test_all(self) -> None:
        self.check_without(*FEATURES)

    @pytest.mark.whole
    def test_each(self) -> None:
        """`.ci/run` takes a fourth of them for each commit."""
        for feature in FEATURES:
            if has_turn(feature.name):
                self.check_without(feature)

    def check_without(self, *features: Feature) -> None:
        """What is gone is what they say that they have; rules, options and commands that need one are refused with its name, others are not."""
        gone = {name for feature in features for name in names_of(feature)}
        folder = make_folder(self)
        plain = _write(folder, "")
        commands, missing = [["check", plain]], [""]
        for feature in features:
            words = optional.WORDS[feature.name]
            checks = [["check", _write(folder, _RULES[x])] for x in words if " " not in x]
            options = [[*x.split()[1:], plain, plain] for x in words if x.count(" ") > 1]
            for command in (*checks, *options, *([name] for name in feature.commands)):
                commands.append(command)
                missing.append(f"this needs the part {feature.name}, which is not installed")
        there, done = self.run_without([feature.name for feature in features], commands)
        every = everything()
        self.assertEqual((there, gone - {*every}), ([x for x in every if x not in gone], set()))
        for command, why, (status, said) in zip(commands, missing, done, strict=True):
            if command[0] == "check":
                lines = [x for x in said.splitlines() if re.match(rf"{folder}/\d+\.ini:\d", x)]
                self.assertEqual(bool(why), bool(lines), command)
                self.assertEqual([x for x in lines if why in x], lines[:1], command)
            elif len(command) > 1:
                self.assertIn(status, {1, 2}, command)
                self.assertTrue(said.endswith(f": {why}\n"), said)
            else:
                self.assertEqual((status, said), (1, f"txmux: the command {command[0]!r}: {why}\n"))

    def run_without(
        self, features: list[str], commands: list[list[str]]
    ) -> tuple[list[str], list[list[Any]]]:
        """Return what `everything` has in a copy without some features, and the status and the output of each command there."""
        copy = make_folder(self) / "txmux"
        for folder, left_out in ((_PACKAGE, ["features"]), (_PACKAGE / "features", features)):
            inside = copy / folder.relative_to(_PACKAGE)
            inside.mkdir()
            for path in folder.iterdir():
                if path.name not in left_out:
                    (inside / path.name).symlink_to(path)
        program = f"{inspect.getsource(everything)}{_RUN}"
        env = {**os.environ, "PYTHONPATH": str(copy.parent)}
        done = run_text(sys.executable, "-P", "-c", program, env=env, stdin=json.dumps(commands))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found: tuple[list[str], list[list[Any]]] = tuple(json.loads(done.stdout))
        return found

    def test_all_are_listed(self) -> None:
        # The list has each folder, and the words are those of its rows.
        self.assertEqual({feature.name for feature in FEATURES}, _FOLDERS)
        for feature in FEATURES:
            words = {key for keys in feature.keys.values() for key in keys}
            words |= {f"{word}:" for word in (feature.networks.words if feature.networks else ())}
            words |= {f"{feature.servers.word}:"} if feature.servers else set()
            words |= {f"stage {stage.state}" for stage in feature.stages}
            words |= {f"txmux {name}" for name in feature.commands}
            words |= {f"txmux provider {one.name}" for one in feature.providers()}
            words |= {"txmux explain --pcap"} if feature.captured else set()
            self.assertEqual({*optional.WORDS[feature.name]}, words)
        words = {word for words in optional.WORDS.values() for word in words if " " not in word}
        self.assertEqual(words, {*_RULES})
        # Rules made in Python may name networks without the key that these need: nothing is asked then.
        for name, kind in installed.NETWORKS.items():
            made = DynamicNetworks(name, "x", NetworkSet([]))
            self.assertEqual([*kind.sources(None, made, Settings())], [], name)


def _write(folder: Path, rules: str) -> str:
    (folder / "key").touch()
    path = folder / f"{len([*folder.iterdir()])}.ini"
    text = rules if "[listen" in rules else f"{rules}[listen x]\n"
    path.write_text(f"{text}endpoint = 127.0.0.1:0\ndefault = 127.0.0.1:1\n")
    return str(path)
