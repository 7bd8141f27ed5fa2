"""What stays pure in the house. Who may import whom stands in the architecture page, and `test_docs` compares."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txmux

PACKAGE = Path(txmux.__file__).parent

PURE = (
    "convert", "detection", "errors", "interfaces", "matchers", "rules", "tcp/answers.py", "wire",
)  # fmt: skip
"""Rooms, and single files of others, without sockets, clocks and reactors."""

IMPURE_BUT = {
    "rules/reading/endpoints.py": "asks Twisted which kinds of endpoint there are",
    "rules/embedding.py": "tells a protocol factory by its interface",
}
"""Files in pure rooms that may name Twisted's interfaces, and why."""


@functools.cache
def parsed() -> dict[Path, ast.Module]:
    return {
        path.relative_to(PACKAGE): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for inside, code in parsed().items():
        if inside.name not in {"__init__.py", "__main__.py"} or len(inside.parts) > 1:
            yield inside.parts[0].removesuffix(".py"), inside, code


def imported(code: ast.Module) -> Iterator[str]:
    """Give what a module imports when it runs; imports for type checkers do not count."""
    ahead: list[ast.AST] = [code]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            ahead += node.orelse
        elif not isinstance(node, ast.expr):
            ahead += ast.iter_child_nodes(node)


@functools.cache
def imports() -> dict[str, set[str]]:
    """Give which modules of the package each of them names in its imports, those for type checkers included."""
    code = {}
    for path, module in parsed().items():
        parts = (PACKAGE.name, *path.with_suffix("").parts)
        code[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = module
    found: dict[str, set[str]] = {name: set() for name in code}
    for name, module in code.items():
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                found[name].update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= inside & code.keys() or {str(node.module)}
    return {name: names & code.keys() for name, names in found.items()}


class StructureTest(SynchronousTestCase):
    def test_pure_rooms_know_no_reactor_socket_or_clock(self) -> None:
        impure = {"socket", "select", "time", "asyncio", "twisted.application"}
        for room, path, code in modules():
            if room not in PURE and str(path) not in PURE:
                continue
            found = {name for name in imported(code) if name in impure}
            if str(path) not in IMPURE_BUT:
                found |= {name for name in imported(code) if name.startswith("twisted.internet")}
            self.assertEqual(found, set(), path)

    def test_no_import_circles_even_for_type_checkers(self) -> None:
        left = dict(imports())
        self.assertIn("txmux.tcp.stage", left["txmux.tcp.connection"])
        while free := [name for name, names in left.items() if not names & left.keys()]:
            for name in free:
                del left[name]
        self.assertEqual(sorted(left), [])

    def test_stages_know_neither_connection_nor_stages(self) -> None:
        stages = {name: names for name, names in imports().items() if "tcp.stages." in name}
        self.assertIn("txmux.tcp.stages.peeking", stages)
        for name, names in stages.items():
            known = {other for other in names if other in {*stages, "txmux.tcp.connection"}}
            self.assertEqual((name, known), (name, set()))

    def test_convert_is_an_extra(self) -> None:
        """Nothing but its own command needs `txmux.convert`, and that one only when it runs."""
        for room, path, code in modules():
            if room == "convert":
                continue
            names = {name for name in imported(code) if name.startswith("txmux.convert")}
            self.assertTrue(not names or str(path) == "cli/convert.py", path)
            at_import = ast.Module([node for node in code.body if not hasattr(node, "body")], [])
            self.assertTrue(names.isdisjoint(imported(at_import)), path)

    def test_no_reactor_at_import(self) -> None:
        """No module installs the reactor when it is imported: whoever runs it may choose another."""
        for _, path, code in modules():
            at_import = [
                name
                for node in code.body
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet"
                for name in (alias.name for alias in node.names)
            ]
            self.assertNotIn("reactor", at_import, path)

    def test_no_long_files(self) -> None:
        for _, path, _ in modules():
            self.assertLess(len((PACKAGE / path).read_text().splitlines()), 800, path)
