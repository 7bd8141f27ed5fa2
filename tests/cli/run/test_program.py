import io
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmux.cli.run import LEVELS
from txmux.cli.run.program import TextLog, as_text

_TIME = 1795163804.0879


def event(text: str, level: str = "info", **more: Any) -> dict[str, Any]:
    return {
        "log_time": _TIME,
        "log_level": LogLevel.levelWithName(level),
        "log_namespace": "txmux.service",
        "log_format": "{text}",
        "text": text,
        **more,
    }


class LineTests(SynchronousTestCase):
    def test_time_level_and_message(self) -> None:
        self.assertEqual(as_text(event("it serves")), "2026-11-20T08:36:44.087Z info  it serves\n")

    def test_each_line_of_a_message_has_time_and_level(self) -> None:
        self.assertEqual(
            as_text(event("a: 1\nb: 2", "error")),
            "2026-11-20T08:36:44.087Z error a: 1\n2026-11-20T08:36:44.087Z error   b: 2\n",
        )

    def test_message_before_the_traceback(self) -> None:
        text = as_text(event("no", "critical", log_failure=Failure(ValueError("why"))))
        first, *others = text.splitlines()
        self.assertTrue(first.endswith("Z critical no"), first)
        self.assertIn("ValueError: why", others[-1])

    @given(st.text(), st.sampled_from(LEVELS))
    def test_no_message_can_forge_a_line(self, text: str, level: str) -> None:
        for line in as_text(event(text, level)).removesuffix("\n").split("\n"):
            self.assertRegex(line, rf"^2026-11-20T08:36:44\.087Z {level} ")


class LevelTests(SynchronousTestCase):
    def written(self, level: str, *events: dict[str, Any]) -> list[str]:
        file = io.StringIO()
        log = TextLog(file, level)
        for one in events:
            log(one)
        return re.findall(r"^\S+ \w+ +(.*)$", file.getvalue(), re.MULTILINE)

    def test_less_than_the_level_is_left_out(self) -> None:
        events = [event(level, level) for level in LEVELS]
        for number, level in enumerate(LEVELS):
            self.assertEqual(self.written(level, *events), list(LEVELS[number:]))

    def test_twisted_only_from_warnings_or_at_debug(self) -> None:
        events = [event(level, level, log_namespace="twisted.internet.base") for level in LEVELS]
        self.assertEqual(self.written("info", *events), ["warn", "error", "critical"])
        self.assertEqual(self.written("debug", *events), list(LEVELS))

    def test_output_of_plugins_is_logged(self) -> None:
        self.assertEqual(self.written("info", event("hello", log_namespace="stdout")), ["hello"])

    def test_loggers_of_txmux_under_any_name(self) -> None:
        file = io.StringIO()
        Logger(namespace="txmux.access", observer=TextLog(file)).info("{line}", line="id=1")
        self.assertRegex(file.getvalue(), r"Z info  id=1\n$")
