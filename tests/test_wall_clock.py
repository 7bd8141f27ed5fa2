"""Who looks at the time of day: only what is for people, `during`, certificates, and what others write by it."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.test_structure import parsed

_TABLE = Path(__file__).with_name("wall_clock.txt")
_KINDS = frozenset({"stamp", "during", "certificates", "others"})
_OF_TIME = frozenset({
    "time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime",
})  # fmt: skip
_OF_DATES = frozenset({"now", "utcnow", "today"})
_MAY_LOOK = r"\btime\.|from time import|\b(date|datetime)\."
_REALTIME = frozenset({"CLOCK_REALTIME", "CLOCK_REALTIME_COARSE", "CLOCK_TAI"})


def looks(module: ast.Module) -> Iterator[str]:
    def walk(node: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = (*inside, node.name)
        if _is_look(node):
            yield ".".join(inside) or "<module>"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    return walk(module, ())


def _is_look(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "time":
        return any(name.name in _OF_TIME | _REALTIME for name in node.names)
    if not isinstance(node, ast.Attribute):
        return False
    if isinstance(node.value, ast.Name) and node.value.id == "time":
        return node.attr in _OF_TIME | _REALTIME
    of = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    return of in {"datetime", "date"} and node.attr in _OF_DATES


def _table() -> dict[tuple[str, str], tuple[int, str, str]]:
    rows = (
        [*map(str.strip, line.split("|"))]
        for line in _TABLE.read_text().splitlines()
        if line and not line.startswith("#")
    )
    return {(file, name): (int(count), kind, why) for file, name, count, kind, why in rows}


class WallClockTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Each look is in the table with its reason: what waits, lasts or ends goes by the monotonic clock."""
        found = Counter(
            (str(path), name) for path, code in parsed(_MAY_LOOK).items() for name in looks(code)
        )
        table = _table()
        duty = "one row for each function that looks at the time of day, with how often"
        told = {key: count for key, (count, _, _) in table.items()}
        self.assertEqual(told, dict(found), f"{_TABLE.name} has {duty}")
        self.assertEqual({kind for _, kind, _ in table.values()} - _KINDS, set())
        self.assertTrue(all(why for _, _, why in table.values()))

    def test_every_way(self) -> None:
        for text in (
            "import time\ntime.time()", "import time\nf(now=time.time)", "import time\ntime.time_ns()",
            "from time import monotonic, time", "import datetime\ndatetime.datetime.now()",
            "from datetime import date\ndate.today()", "time.clock_gettime(time.CLOCK_REALTIME)",
            "time.strftime('%H')",
        ):  # fmt: skip
            self.assertEqual([*looks(ast.parse(text))], ["<module>"], text)
        for text in ("time.monotonic()", "record.time", "self.now()", "datetime.fromtimestamp(1)"):
            self.assertEqual([*looks(ast.parse(text))], [], text)
        nested = "class A:\n    def b(self):\n        return time.time()"
        self.assertEqual([*looks(ast.parse(nested))], ["A.b"])
