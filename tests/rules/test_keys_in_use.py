"""What follows from the rows of keys: which modules a value needs, and who reads its files."""

import ast
from importlib import import_module
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

import txmux
from txmux.errors import MuxError
from txmux.rules.feature import Feature
from txmux.rules.installed import FEATURES, STAGES
from txmux.rules.named_files import needed_modules
from txmux.rules.optional import load
from txmux.rules.reading.parser import parse
from txmux.rules.reading.sections import TABLES

_PACKAGE = Path(txmux.__file__).parent
_OF_WORKERS = ("access", "backends", "client", "detection", "net", "serving", "tcp", "udp", "wire")
_NO_PART = attrs.fields(Feature).serving_part.default
_ELSEWHERE = {
    "txmux.rules.embedding": "rules made in Python",
    "txmux.udp.listener": "`udp_listening_port` has it",
    "txmux.wire.http2_fields": "what clients send decides",
    "txmux.wire.quic.initial": "what clients send decides",
}
"""What no key loads."""


def _imported_late(path: Path) -> set[str]:
    found = {
        node.module or ""
        for function in [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom)
    }
    return {name for name in found if name.startswith("txmux.")}


def _texts(tree: ast.AST) -> set[str]:
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


class ModulesTest(SynchronousTestCase):
    def test_all_that_workers_import_late(self) -> None:
        """What a worker imports only for some rules is named by a key's row, so that it is there before the first is forked."""
        features = [*(_PACKAGE / "features").glob("*/__init__.py")]
        readers = (*(_PACKAGE / "rules/reading").glob("*.py"), *features)
        named = {text for path in readers for text in _texts(ast.parse(path.read_text()))}
        named |= {f"txmux.backends.names.{name}" for name in ("addresses", "lookup", "question")}
        paths = (path for folder in _OF_WORKERS for path in (_PACKAGE / folder).rglob("*.py"))
        late = {name for path in paths for name in _imported_late(path)}
        for feature, path in ((load(path.parent.name), path) for path in features):
            parts = {
                text.partition(":")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.keyword) and node.arg == "serving_part"
                for text in _texts(node.value)
            }
            self.assertEqual(feature.serving_part is not _NO_PART, bool(parts), feature.name)
            late |= parts
        self.assertEqual(late - named, _ELSEWHERE.keys())

    def test_modules_and_readers_are_those_that_are_needed(self) -> None:
        """A row may look at the value: no module is loaded in vain."""

        def modules(text: str) -> set[str]:
            always = {stage.maker.partition(":")[0] for stage in STAGES["match"]}
            return {*needed_modules(parse(text, Path("x.ini")))} - always

        self.assertEqual(modules("[listen a]\nendpoint = 127.0.0.1:1\n"), set())
        udp = modules("[listen a]\nendpoint = udp:127.0.0.1:1\ndefault = udp:127.0.0.1:2\n")
        self.assertEqual(udp, {"txmux.serving.udp_listening_port"})
        # What a row names to read its files is there, and refuses one that is not.
        readers = {key.files.reader for keys in TABLES.values() for key in keys.values()} - {""}
        self.assertEqual(not readers, not FEATURES)
        for reader in readers:
            module, _, name = reader.partition(":")
            read = getattr(import_module(module), name)
            self.assertRaises(MuxError, read, Path("/nonexistent/file"))
        for keys in TABLES.values():
            for name, key in keys.items():
                self.assertTrue(key.files.opens or not key.files.reader, name)
