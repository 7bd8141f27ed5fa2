"""A folder of `txmux/features` can be deleted: the core works without it, and says what is missing."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import txmux
from tests.interop.children import PATIENCE
from tests.support.examples import has_turn
from tests.support.folders import make_folder
from txmux.control.gauge import Gauge
from txmux.rules import installed, optional
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
    "txmux": "[txmux]",
    "listen": "[listen x]",
    "route": "[route y]\nmatch = ssh\nbackend = close",
    "backend": "[backend y]\nserver = 127.0.0.1:1",
}
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


def everything() -> list[str]:
    """Name all commands, resources, metrics, numbers, and fields and columns of documents."""
    from txmux.admin.metrics import METRICS  # noqa: PLC0415 - another process runs this alone
    from txmux.admin.site import ADMIN  # noqa: PLC0415
    from txmux.cli import names_of_commands  # noqa: PLC0415
    from txmux.control.gauges import GAUGES  # noqa: PLC0415
    from txmux.telemetry import documents  # noqa: PLC0415
    from txmux.telemetry.attention_rows import every_row  # noqa: PLC0415
    from txmux.telemetry.counting.counter_groups import TOTALS  # noqa: PLC0415

    return [
        *names_of_commands(),
        *(one.path for one in ADMIN),
        *(f"stage {state}" for state in documents.STATES),
        *(f"metric {metric.name}" for metric in METRICS),
        *(f"cell {group.kind} {name}" for group in TOTALS for name in group.names),
        *(f"gauge {row.name}" for row in GAUGES),
        *(
            f"field {name} {field.name}"
            for name, its in vars(documents).items()
            if hasattr(its, "__required_keys__")
            for field in documents.every_field_of(its)
        ),
        *(f"column {column.title}" for column in documents.listeners().columns),
        *(f"item {row.what} {row.level} {row.when}" for row in every_row()),
    ]


def named_by(row: Any) -> Iterator[str]:
    """Yield what `everything` has of the row of a feature."""
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


class ListTests(SynchronousTestCase):
    def test_all_are_listed(self) -> None:
        """The list has each folder, and the words are those of its rows."""
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

    def test_rules_made_in_python(self) -> None:
        """They may name networks without the key that these need: nothing is asked then."""
        for name, kind in installed.NETWORKS.items():
            made = DynamicNetworks(name, "x", NetworkSet([]))
            self.assertEqual([*kind.sources(None, made, Settings())], [], name)

    def test_nothing_imports_them(self) -> None:
        """Neither does the core, nor another feature."""
        for path in sorted(_PACKAGE.rglob("*.py")):
            inside = path.relative_to(_PACKAGE).parts
            own = ".".join(("txmux", *inside[:2]))
            for node in ast.walk(ast.parse(path.read_text())):
                name = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                if name.startswith("txmux.features."):
                    self.assertEqual(inside[0], "features", path)
                    self.assertTrue(name.startswith(own), f"{path} imports {name}")


class WithoutTests(SynchronousTestCase):
    """Each folder is deleted from a copy; `.ci/run` takes a fifth of them for each commit."""

    def test_rules_that_need_it(self) -> None:
        """They are refused, with the name of what is missing; others are not."""
        for feature in FEATURES:
            if not has_turn(feature.name):
                continue
            folder = self.copy_without(feature.name)
            for word in optional.WORDS[feature.name]:
                if " " in word:
                    continue
                lines = self.check(folder, _RULES[word])
                why = f"this needs the part {feature.name}, which is not installed"
                self.assertEqual([line for line in lines if why in line], lines[:1], lines)
            self.assertEqual(self.check(folder, ""), [])

    def test_what_is_gone(self) -> None:
        """It is what the feature says that it has; its commands say why."""
        for feature in FEATURES:
            gone = {*feature.commands, *(one.path for one in feature.resources())}
            gone |= {f"stage {stage.state}" for stage in feature.stages}
            gone |= {name for row in feature.rows() for name in named_by(row)}
            used = [word for word in optional.WORDS[feature.name] if word.count(" ") > 1]
            if not (gone or used) or not has_turn(feature.name):
                continue
            folder = self.copy_without(feature.name)
            look = f"{inspect.getsource(everything)}\nimport json\nprint(json.dumps(everything()))"
            there = json.loads(self.run_python(folder, "-c", look).stdout)
            every = everything()
            self.assertEqual((there, gone - {*every}), ([x for x in every if x not in gone], set()))
            why = f": this needs the part {feature.name}, which is not installed\n"
            done = [self.run_python(folder, "-m", "txmux", name) for name in feature.commands]
            told = [(1, f"txmux: the command {name!r}{why}") for name in feature.commands]
            self.assertEqual([(one.returncode, one.stderr) for one in done], told)
            self.check(folder, "")
            for word in used:
                words = [*word.split()[1:], "rules.ini", "rules.ini"]
                done.append(self.run_python(folder, "-m", "txmux", *words))
            self.assertLessEqual({one.returncode for one in done}, {1, 2})
            self.assertEqual({one.stderr[-len(why) :] for one in done} - {why}, set())

    def copy_without(self, name: str) -> Path:
        folder = make_folder(self)
        ignore = shutil.ignore_patterns("*.pyc.*")  # which is being written
        shutil.copytree(_PACKAGE, folder / "txmux", ignore=ignore)
        shutil.rmtree(folder / "txmux/features" / name)
        return folder

    def check(self, folder: Path, rules: str) -> list[str]:
        """Return what `txmux check` says is wrong."""
        (folder / "key").touch()
        text = rules if "[listen" in rules else f"{rules}[listen x]\n"
        path = folder / "rules.ini"
        path.write_text(f"{text}endpoint = 127.0.0.1:0\ndefault = 127.0.0.1:1\n")
        done = self.run_python(folder, "-m", "txmux", "check", path.name)
        lines = (done.stdout + done.stderr).splitlines()
        return [line for line in lines if re.match(r"rules\.ini:\d", line)]

    @staticmethod
    def run_python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", *words],
            capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )  # fmt: skip
