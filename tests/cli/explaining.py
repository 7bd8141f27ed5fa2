"""What tests of ``txmux explain`` have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from tests.cli.support import CommandTestCase

if TYPE_CHECKING:
    from pathlib import Path


class ExplainTestCase(CommandTestCase):
    text: ClassVar[str]

    def setUp(self) -> None:
        super().setUp()
        self.rules = self.write("rules.ini", self.text)

    def explain(self, *arguments: str | Path) -> str:
        code, out, err = self.run_main("explain", self.rules, *arguments)
        self.assertEqual((code, err), (0, ""))
        return out

    def explain_json(self, *arguments: str | Path) -> Any:
        """Explain; the first listener of the first stream of the document."""
        return json.loads(self.explain("--json", *arguments))["streams"][0]["listeners"][0]
