"""What ``twist txmux`` logs where no terminal is."""

from __future__ import annotations

import json

from tests.interop.children import Child, InteropTestCase
from tests.interop.mux import twist_command


class LogFormatTests(InteropTestCase):
    """The form of its lines."""

    def said(self, *options: str) -> list[str]:
        rules = self.folder / "rules.ini"
        rules.write_text("[listen public]\nendpoint = 127.0.0.1:0\n")
        child = self.own(Child(*twist_command(), *options, "txmux", "--rules", rules))
        child.wait_for("workers that serve")
        child.process.terminate()
        child.wait()
        return child.output.replace("\x1e", "").splitlines()  # RFC 7464

    def test_text_by_default(self) -> None:
        lines = self.said()
        (listening,) = (line for line in lines if "for [listen public]" in line)
        self.assertRegex(listening, r"^\S+ \[txmux\.serving\.store#info\] listening on 127")

    def test_json_however_it_is_asked_for(self) -> None:
        for words in (["--log-format=json"], ["--log-format", "json"], ["--log-form=json"]):
            for line in self.said(*words):
                self.assertIn("log_format", json.loads(line))
