"""The lines of the log of ``txmux run``."""

from __future__ import annotations

import io
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmux.cli.run import LEVELS as KNOWN_LEVELS
from txmux.cli.run.program import LEVELS, TextLog, as_text

_TIME = 1795163804.0879


def event(text: str, level: str = "info", **more: Any) -> dict[str, Any]:
    """Make an event."""
    return {
        "log_time": _TIME,
        "log_level": LogLevel.levelWithName(level),
        "log_namespace": "txmux.service",
        "log_format": "{text}",
        "text": text,
        **more,
    }


class LineTests(SynchronousTestCase):
    """How an event is written."""

    def test_line(self) -> None:
        """The time in UTC with milliseconds, the level, and the message."""
        self.assertEqual(as_text(event("it serves")), "2026-11-20T08:36:44.087Z info  it serves\n")

    def test_several_lines(self) -> None:
        """Each line of a message can be understood alone."""
        self.assertEqual(
            as_text(event("a: 1\nb: 2", "error")),
            "2026-11-20T08:36:44.087Z error a: 1\n2026-11-20T08:36:44.087Z error   b: 2\n",
        )

    def test_traceback(self) -> None:
        """The traceback of a failure is there, with the message in front."""
        text = as_text(event("no", "critical", log_failure=Failure(ValueError("why"))))
        first, *others = text.splitlines()
        self.assertTrue(first.endswith("Z critical no"), first)
        self.assertIn("ValueError: why", others[-1])

    @given(st.text(), st.sampled_from(LEVELS))
    def test_no_forgery(self, text: str, level: str) -> None:
        """Whatever a message has in it, each line begins as all do, so that nobody can write a line of another time or level."""
        for line in as_text(event(text, level)).removesuffix("\n").split("\n"):
            self.assertRegex(line, rf"^2026-11-20T08:36:44\.087Z {level} ")


class LevelTests(SynchronousTestCase):
    """What is written at all."""

    def written(self, level: str, *events: dict[str, Any]) -> list[str]:
        """Give the messages that are."""
        file = io.StringIO()
        log = TextLog(file, level)
        for one in events:
            log(one)
        return re.findall(r"^\S+ \w+ +(.*)$", file.getvalue(), re.MULTILINE)

    def test_least(self) -> None:
        """What is less important than asked for is left out."""
        events = [event(level, level) for level in LEVELS]
        for number, level in enumerate(LEVELS):
            self.assertEqual(self.written(level, *events), list(LEVELS[number:]))

    def test_of_twisted(self) -> None:
        """Twisted's own doings are told only if they are a warning, or all is wanted."""
        events = [event(level, level, log_namespace="twisted.internet.base") for level in LEVELS]
        self.assertEqual(self.written("info", *events), ["warn", "error", "critical"])
        self.assertEqual(self.written("debug", *events), list(LEVELS))

    def test_printed(self) -> None:
        """What a plugin prints is told."""
        self.assertEqual(self.written("info", event("hello", log_namespace="stdout")), ["hello"])

    def test_of_workers(self) -> None:
        """What a logger of txmux's says is told, whatever its name is."""
        file = io.StringIO()
        Logger(namespace="txmux.access", observer=TextLog(file)).info("{line}", line="id=1")
        self.assertRegex(file.getvalue(), r"Z info  id=1\n$")

    def test_levels(self) -> None:
        """The command offers just these, without importing what it takes to serve."""
        self.assertEqual(KNOWN_LEVELS, LEVELS)
