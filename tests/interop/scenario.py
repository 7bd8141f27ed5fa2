"""Unchanged examples, in a network namespace with the addresses and ports that they name."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from tests.interop.children import InteropTestCase
from tests.interop.namespaces import Namespace, mounted
from tests.support.services import Record, Twist

EXAMPLES = Path(__file__).parents[2] / "examples"

_LINE = re.compile(r"(?<= )(id=\S+ listener=.*)")


class Example(Twist):
    """A service with an example as its rules, and other files at some paths; without a file, its access log is in its own log."""

    def __init__(
        self, rules: Path, folders: Mapping[str, Path] | None = None, log: Path | None = None
    ) -> None:
        super().__init__("--rules", rules, before=mounted(folders or {}))
        self._log = log
        self.child.wait_for("Starting reactor")

    def lines(self, listener: str = "") -> list[Record]:
        text = self._log.read_text() if self._log else self.child.output
        whole, _, _ = text.rpartition("\n")
        lines = [_record(found[1]) for found in _LINE.finditer(whole)]
        return [line for line in lines if listener in ("", line["listener"])]


@pytest.mark.by_turns
class ScenarioTestCase(InteropTestCase):
    """Tests of an example in a network of their own, where its ports are free, with some addresses beside those of loopback."""

    addresses: ClassVar[tuple[str, ...]] = ()
    network: ClassVar[Namespace]
    mux: Example  # type: ignore[assignment]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.network = Namespace(cls)
        for address in cls.addresses:
            cls.network.ip(f"addr add {address}/32 dev lo")
        cls.network.enter()


def _record(line: str) -> Record:
    fields = dict(word.split("=", 1) for word in shlex.split(line))
    names = [name for name in fields if name.startswith("facts.")]
    facts = {name.removeprefix("facts."): fields.pop(name) for name in names}
    return {**fields, "facts": facts}
