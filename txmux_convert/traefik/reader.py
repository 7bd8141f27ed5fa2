"""Traefik's files, in YAML or TOML, with the line of each value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import attrs

from txmux_convert.writer import ConvertError, import_package

_FILE = "a file of Traefik"
MOST_DEPTH = 50
_MOST_NODES = 100_000
"""A small YAML file can have very many nodes, by its anchors."""


@attrs.frozen
class Node:
    """A value.

    Attributes:
        value: A text, a list of nodes, or nodes by their keys, which are in small letters.
        names: Of nodes by their keys, the keys as they are written.
        used: The keys that somebody has asked for.
    """

    value: Any
    line: int
    names: Mapping[str, str] = attrs.field(factory=dict)
    used: set[str] = attrs.field(factory=set, init=False, eq=False, repr=False)

    def get(self, *path: str) -> Node:
        node = self
        for key in path:
            inside = node.value if isinstance(node.value, dict) else {}
            node.used.add(key.lower())
            node = inside.get(key.lower(), Node("", self.line))
        return node

    def items(self) -> Iterator[tuple[str, Node]]:
        """Yield what it has, with the keys as they are written."""
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                self.used.add(key)
                yield self.names[key], node

    def leave_out(self) -> None:
        """Count all in it as used, since the whole has been reported."""
        for _, inside in self.items():  # noqa: PERF102 - not those of a dict
            inside.leave_out()

    def unused(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Yield what nobody has asked for, by its path: a whole mapping where that is so of all in it."""
        if isinstance(self.value, list):
            for item in self.value:
                yield from item.unused(path)
        for key, node in self.value.items() if isinstance(self.value, dict) else ():
            place = f"{path}.{self.names[key]}".removeprefix(".")
            is_untouched = isinstance(node.value, dict) and node.value and not node.used
            if key not in self.used or is_untouched:
                yield place, node
            else:
                yield from node.unused(place)

    def each(self) -> list[Node]:
        """Return the items of a list; a text is one of them."""
        if isinstance(self.value, list):
            return self.value
        return [self] if self.text else []

    def texts(self) -> list[str]:
        return [item.text for item in self.each()]

    @property
    def text(self) -> str:
        return self.value if isinstance(self.value, str) else ""

    @property
    def is_set(self) -> bool:
        """Whether it is there and, if it is a boolean, is not false by Go's `strconv.ParseBool`."""
        return self.value not in ("", "0", "f", "F", "false", "False", "FALSE")


def read_file(data: bytes, path: str) -> Node:
    text = data.decode("utf-8", "replace")
    if PurePath(path).suffix.lower() == ".toml":
        return _read_toml(text, path)
    yaml = import_package("yaml", _FILE, "PyYAML")
    try:
        return _of_yaml(yaml.compose(text, Loader=yaml.SafeLoader), path, iter(range(_MOST_NODES)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ConvertError(f"{path}:{line}: is not YAML: {error}".replace("\n", " ")) from None
    except RecursionError:
        raise ConvertError(f"{path}: is nested too deeply") from None


def _read_toml(text: str, path: str) -> Node:
    try:
        return _of_toml(tomllib.loads(text), text.split("\n"), 0)
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{path} is not TOML: {error}") from None


def _of_yaml(node: Any, path: str, room: Iterator[int], depth: int = 0) -> Node:
    if node is None:
        return Node("", 1)
    line = node.start_mark.line + 1
    if depth > MOST_DEPTH or next(room, None) is None:
        raise ConvertError(f"{path}:{line}: is nested too deeply, or too large")
    if node.id == "mapping":
        scalars = [(key, value) for key, value in node.value if key.id == "scalar"]
        lines = {str(key.value): key.start_mark.line + 1 for key, _ in scalars}
        pairs = [(str(key.value), _of_yaml(v, path, room, depth + 1)) for key, v in scalars]
        return _mapping([(k, attrs.evolve(v, line=lines[k])) for k, v in pairs], line)
    if node.id == "sequence":
        return Node([_of_yaml(value, path, room, depth + 1) for value in node.value], line)
    is_null = node.tag == "tag:yaml.org,2002:null"
    is_boolean = node.tag == "tag:yaml.org,2002:bool"
    return Node("" if is_null else node.value.lower() if is_boolean else str(node.value), line)


def _of_toml(value: Any, lines: list[str], line: int) -> Node:
    """Return a value; its line is looked for, since the package does not report it."""
    if isinstance(value, dict):
        pairs = []
        for key, inside in value.items():
            named = re.compile(rf"""(?:^|[\[.\s"']){re.escape(key)}["']?\s*(?:[\].=]|$)""")
            at = next((n for n in range(line, len(lines)) if named.search(lines[n])), line)
            pairs.append((key, _of_toml(inside, lines, at)))
        return _mapping(pairs, line + 1)
    if isinstance(value, list):
        return Node([_of_toml(inside, lines, line) for inside in value], line + 1)
    return Node(str(value).lower() if isinstance(value, bool) else str(value), line + 1)


def _mapping(pairs: list[tuple[str, Node]], line: int) -> Node:
    return Node({k.lower(): v for k, v in pairs}, line, {k.lower(): k for k, _ in pairs})
