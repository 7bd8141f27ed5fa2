"""What stays pure in the code, and that the architecture page says which package imports which."""

import ast
import functools
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.trial.unittest import SynchronousTestCase

import txmux
import txmux_convert
from txmux.rules.feature import Feature
from txmux.rules.installed import FEATURES

PACKAGE = Path(txmux.__file__).parent
CONVERT = Path(txmux_convert.__file__).parent

PURE = (
    "detection", "errors", "interfaces", "matchers", "rules", "tcp/answers.py", "txmux_convert", "wire",
)  # fmt: skip
"""Packages, and single files of others, without sockets, clocks and reactors."""

PROGRAMS = {"txmux_convert/command.py"}
"""Files in pure packages that ask the system, and pass on the answers."""

IMPURE_BUT = {
    "rules/reading/endpoints.py": "asks Twisted which kinds of endpoint there are",
    "rules/embedding.py": "tells a protocol factory by its interface",
}
"""Files in pure packages that may name Twisted's interfaces, and why."""

_Node = TypeVar("_Node", bound=ast.AST)

_VERBS = {"prepare", "commit"}
_OTHERWISE = {
    *(("extend", of) for of in ("Counters", "LimitsLayout", "SharedLimits")),  # more memory
    *(("open", of) for of in ("AdminEndpoints", "Privilege", "Resources", "Upgrades")),  # at the start alone
    ("add_backends", "Upstreams"), ("start_forking", "Starter"),
    ("listen_all", "Serving"),
}  # fmt: skip
"""What takes rules once, or for something else."""

_INSIDE = {
    r"(?<!self)(?<!cls)\._(?!(?:tcp|udp|https|exit|replace)\b)[a-z]\w*": 105,
    r"\bpatch(?:\.\w+)?\(": 200,
}
"""What tests know of the inside: private names of others, and what they replace; with how often they do at most."""

_IMPORT_FEATURES = {"interop", "test_sources.py"}
"""Tests that do not run yet where a feature's folder is deleted; those beside real programs are of the whole."""


@functools.cache
def parsed(having: str = "") -> dict[Path, ast.Module]:
    """Return the code of each file of `txmux` in which a pattern occurs, by its path in there; those of `txmux_convert` begin with its name.

    All take two seconds and a half, those that have something as common as ``time`` a quarter of that.
    """
    return {
        path.relative_to(CONVERT.parent if package is CONVERT else PACKAGE): ast.parse(text)
        for package in (PACKAGE, CONVERT)
        for path in sorted(package.rglob("*.py"))
        if re.search(having, text := path.read_text())
    }


@functools.cache
def _walked() -> dict[type[ast.AST], list[tuple[Path, ast.AST]]]:
    """Hold the nodes of all files by their type, since to walk through all takes a second each time."""
    by_type: dict[type[ast.AST], list[tuple[Path, ast.AST]]] = {}
    for path, code in parsed().items():
        for node in ast.walk(code):
            by_type.setdefault(type(node), []).append((path, node))
    return by_type


def nodes(of: type[_Node]) -> Iterator[tuple[Path, _Node]]:
    return ((path, cast(_Node, node)) for path, node in _walked().get(of, ()))


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for inside, code in parsed().items():
        if inside.name not in {"__init__.py", "__main__.py"} or len(inside.parts) > 1:
            yield inside.parts[0].removesuffix(".py"), inside, code


def imported(code: ast.Module) -> Iterator[str]:
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
    names = {}
    for path in parsed():
        parts = path.with_suffix("").parts
        if parts[0] != CONVERT.name:
            parts = (PACKAGE.name, *parts)
        names[path] = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    found: dict[str, set[str]] = {name: set() for name in names.values()}
    for path, whole in nodes(ast.Import):
        found[names[path]].update(alias.name for alias in whole.names)
    for path, of in nodes(ast.ImportFrom):
        inside = {f"{of.module}.{alias.name}" for alias in of.names}
        found[names[path]] |= inside & found.keys() or {str(of.module)}
    return {name: its & found.keys() for name, its in found.items()}


def setUpModule() -> None:
    gc.disable()  # it would go through a million objects again and again, as `gc.collect` would in all later tests


def tearDownModule() -> None:
    _walked.cache_clear()
    parsed.cache_clear()
    gc.enable()


class StructureTest(SynchronousTestCase):
    def test_pure_packages_know_no_reactor_socket_or_clock(self) -> None:
        impure = {"socket", "select", "time", "asyncio", "twisted.application"}
        for package, path, code in modules():
            if (package not in PURE and str(path) not in PURE) or str(path) in PROGRAMS:
                continue
            found = {name for name in imported(code) if name in impure}
            if str(path) not in IMPURE_BUT:
                found |= {name for name in imported(code) if name.startswith("twisted.internet")}
            self.assertEqual(found, set(), path)

    def test_imports(self) -> None:
        # There are no circles, even for type checkers, neither of files nor of folders.
        self.assertIn("txmux.tcp.stage", imports()["txmux.tcp.connection"])
        folders: dict[str, set[str]] = {}
        for name, names in imports().items():
            folder, *others = (".".join(one.split(".")[:2]) for one in (name, *names))
            folders.setdefault(folder, set()).update({*others} - {folder, PACKAGE.name})
        for left in (dict(imports()), folders):
            while free := [name for name, names in left.items() if not names & left.keys()]:
                for name in free:
                    del left[name]
            self.assertEqual(sorted(left), [])
        # The architecture page says which packages each uses.
        page = (PACKAGE.parent / "docs/explanation/architecture.md").read_text()
        rows = re.findall(r"^\| `(txmux[\w.]*)` \|.*\|([^|]*)\|$", page, re.MULTILINE)
        self.assertGreater(len(rows), 20)
        for package, uses in rows:
            of = (its for name, its in imports().items() if f"{name}.".startswith(f"{package}."))
            used = {one.split(".")[1] for its in of for one in its if one.startswith("txmux.")}
            expected = used - {package.removeprefix("txmux."), "classes"}
            self.assertEqual((package, {*re.findall(r"\w+", uses)}), (package, expected))
        # Stages know neither the connection nor stages.
        stages = {name: its for name, its in imports().items() if "tcp.stages." in name}
        self.assertIn("txmux.tcp.stages.peeking", stages)
        for name, names in stages.items():
            known = {other for other in names if other in {*stages, "txmux.tcp.connection"}}
            self.assertEqual((name, known), (name, set()))
        # Nothing imports `txmux_convert`: an entry point names its command; the core works without it.
        core = {name: its for name, its in imports().items() if not name.startswith(CONVERT.name)}
        self.assertIn(CONVERT.name, imports())
        named = {name for its in core.values() for name in its}
        self.assertEqual(named & {*imports()} - {*core}, set())
        # Neither does the core import a feature, nor another feature.
        features = {name for name in imports() if name.startswith("txmux.features.")}
        self.assertIn("txmux.features.ech.keys", features)
        for name, names in imports().items():
            own = ".".join(name.split(".")[:3])
            found = {one for one in names & features if not f"{one}.".startswith(f"{own}.")}
            self.assertEqual((name, found), (name, set()))

    def test_tests_of_the_core_import_no_feature(self) -> None:
        """They run where its folder is deleted; see `script/without`."""
        tests = Path(__file__).parent
        for path in sorted(tests.rglob("*.py")):
            inside = path.relative_to(tests).parts
            own = f"{inside[1]}." if inside[0] == "features" else "none"
            text = path.read_text()
            for name in imported(ast.parse(text)) if "features" in text else ():
                found = re.match(r"(?:txmux|tests)\.features\.(.+)", f"{name}.")
                is_own = found is None or found[1].startswith(own)
                if not (is_own or {inside[0], "/".join(inside)} & _IMPORT_FEATURES):
                    self.fail(f"{path} imports {name}: move what needs it to tests/features")

    def test_tests_go_by_what_is_seen_from_outside(self) -> None:
        text = "".join(path.read_text() for path in Path(__file__).parent.rglob("*.py"))
        for pattern, most in _INSIDE.items():
            self.assertLessEqual(len(re.findall(pattern, text)), most, pattern)
        classes = re.findall(r"^class (\w*(?:Test|Case)\w*)\((.*)\):", text, re.MULTILINE)
        bases = {base for _, of in classes for base in re.findall(r"\w+(?=,|$)", of)}
        self.assertLessEqual(len(bases & {name for name, _ in classes}), 15, "make it an object")

    def test_each_module(self) -> None:
        """None installs the reactor when it is imported: whoever runs it may choose another; and none is long."""
        for _, path, code in modules():
            nodes_of = (node for node in code.body if isinstance(node, ast.ImportFrom))
            at_import = [(node.module, one.name) for node in nodes_of for one in node.names]
            self.assertNotIn(("twisted.internet", "reactor"), at_import, path)
            folder = CONVERT.parent if path.parts[0] == CONVERT.name else PACKAGE
            self.assertLess(len((folder / path).read_text().splitlines()), 800, path)

    def test_modules_that_texts_name_are_there(self) -> None:
        """Those that are imported by name, only where rules need them, among others."""
        named = {
            (str(inside), node.value)
            for inside, node in nodes(ast.Constant)
            if isinstance(node.value, str) and re.fullmatch(r"txmux(\.[a-z_]+){2,}", node.value)
        }
        self.assertIn(("features/ech/__init__.py", "txmux.features.ech.keys"), named)
        places = [(one, PACKAGE.parent / one[1].replace(".", "/")) for one in named]
        there = {one for one, its in places if its.is_dir() or its.with_suffix(".py").exists()}
        self.assertEqual(named - there, set())

    def test_verbs(self) -> None:
        # What a process keeps takes its rules by `prepare` and `commit`: one thing has one name.
        found = {
            (method.name, of.name)
            for _, of in nodes(ast.ClassDef)
            for method in of.body
            if isinstance(method, ast.FunctionDef)
            and not method.name.startswith("_")
            and any(getattr(one.annotation, "id", "") == "Rules" for one in method.args.args)
            and re.match("None|Prepared", ast.unparse(method.returns or ast.Constant(None)))
        }
        others = {(name, of) for name, of in found if name.partition("_")[0] not in _VERBS}
        self.assertEqual(others, _OTHERWISE)
        self.assertGreater(len(found - others), 10)
        # `look` is called now and then, and `troubles` for the operator: neither takes an argument. What these verbs replaced is gone.
        functions: list[tuple[Path, Any]]
        functions = [*nodes(ast.FunctionDef), *nodes(ast.AsyncFunctionDef)]
        methods = [x for x in functions if [one.arg for one in x[1].args.args[:1]] == ["self"]]
        called = {
            (method.name, ast.unparse(method.args))
            for path, method in methods
            if path.parts[0] in {"access", "admin", "client", "control", "processes", "serving"}
            and re.fullmatch("look|look_again|troubles|problems|use|take_over", method.name)
        }
        self.assertEqual(called, {("look", "self"), ("troubles", "self")})

    # What the page on the core lists can be read in a day, and without its features.
    def test_page_of_the_core(self) -> None:
        rows = re.findall(r"^\| `([\w/]+\.py)` \| (\d+) \|", _CORE.read_text(), re.MULTILINE)
        words = {word for feature in FEATURES for word in feature_words(feature)} - _STILL_NAMED
        self.assertIn("crowdsec_key", words)
        total = 0
        for name, told in rows:
            path, count = Path(name), len((PACKAGE / name).read_text().splitlines())
            total += count
            self.assertLess(abs(int(told) - count), 10 + count / 10, f"{path} in {_CORE}")
            self.assertEqual(words & {*words_of(parsed()[path])}, set(), path)
        self.assertGreater(len(rows), 15)
        self.assertLessEqual(total, _MOST_TO_READ)


_CORE = PACKAGE.parent / "docs/explanation/core.md"
_MOST_TO_READ = 6000
_STILL_NAMED = {
    "acme",
    "top",  # a layer of routes, too
}  # fmt: skip
"""Capabilities that these files may name although they have a folder."""


def feature_words(feature: Feature) -> set[str]:
    keys = {key for keys in feature.keys.values() for key in keys}
    return {feature.name, *keys, *(feature.networks.words if feature.networks else ())}


def words_of(code: ast.AST) -> Iterator[str]:
    """Give the names, texts and parts of module names in a file; docstrings and comments do not count."""
    for node in ast.walk(code):
        for field in ("id", "attr", "arg", "name", "value", "module"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                yield from text.split(".")


_READERS = frozenset({
    "get_servername", "parse_client_hello", "parse_initial", "parse_opening", "parse_request", "parse_startup", "parse_tls_start",
})  # fmt: skip
"""What reads a name out of a client's bytes or its TLS."""

_READ_AFTER = {
    "tcp/answers.py": "the form of a refusal",
    "tcp/connector.py": "fields of the PROXY header, of a hello that no route has read",
    "tcp/stages/connecting.py": "waits for these fields",
    "tcp/stages/handshaking.py": "the first hello, of a route that was decided by less of it",
}
"""Where a name may be read although the route is decided, and what for; nothing there chooses a server."""

_DECIDED_IN = {
    ("tcp/stage.py", "note_decided"), ("tcp/stages/peeking.py", "data"), ("udp/flow.py", "_route_by"),
    ("tcp/connection.py", "adopt"), ("udp/flow.py", "_restore_values"), ("udp/flow.py", "__init__"),
}  # fmt: skip
"""What sets `decided`: a decision, and what takes a client over from another process."""


class DecidedTest(SynchronousTestCase):
    """Where a client goes is what its route was decided by: see `Client.note_decided`."""

    def test_names(self) -> None:
        # Destinations take names from the decision alone.
        given: dict[str, set[str]] = {}
        for path, call in nodes(ast.Call):
            if name_of(call.func) in {"ClientTarget", "affinity"}:
                values = (one for value in call.args for one in ast.walk(value))
                given[f"{path}:{call.lineno}"] = {*map(name_of, values)} & {"decided", "facts"}
        self.assertGreater(len(given), 4)
        self.assertEqual({*map(frozenset, given.values())}, {frozenset({"decided"})}, given)
        # Only decisions are noted as such.
        found = {
            (str(path), function.name)
            for path, function in nodes(ast.FunctionDef)
            if path.parts[0] in {"tcp", "udp"}
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            if node.attr == "decided"
        }
        self.assertEqual(found, _DECIDED_IN)
        # No name is read again.
        packages = {"access", "backends", "client", "net", "serving", "tcp", "udp"}
        again = {
            str(path)
            for path, call in nodes(ast.Call)
            if path.parts[0] in packages and _READERS & {*map(name_of, (call.func, *call.args))}
        }
        self.assertEqual(again, {*_READ_AFTER})


def name_of(node: ast.AST) -> str:
    return str(getattr(node, "attr", "") or getattr(node, "id", ""))
