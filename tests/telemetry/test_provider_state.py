import os
from contextlib import closing
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.rules.reading.parser import load
from txmux.telemetry import provider_state as reporting
from txmux.telemetry.provider_state import StateFile, reported_sources

_LISTEN = "[listen public]\nendpoint = :443\ndefault = close\n"
_RULES = f"[txmux]\ninclude = p/*.ini\n    p/single\n{_LISTEN}"


class StateTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.rules = self.folder / "rules.ini"
        self.rules.write_text(_RULES)
        (self.folder / "p").mkdir()
        (self.folder / "p/single").write_text("")
        self.path = self.folder / "p/own.ini"
        self.hidden = self.folder / "p/.own.ini.state"
        self.seconds = 1000.0
        self.patch(reporting, "monotonic", lambda: self.seconds)
        self.file = self.enterContext(closing(StateFile(self.path)))

    def states(self) -> list[tuple[str, bool, float | None, float, bool]]:
        states = [one.state(self.seconds) for one in reported_sources(load(self.rules))]
        self.assertEqual({one.name for one in states} - {f"provider {self.path}"}, set())
        return [(one.why, one.up, one.age, one.failing, one.is_overdue) for one in states]

    def test_an_outage_from_its_beginning_to_its_end(self) -> None:
        self.assertEqual(self.states(), [])
        for why, after, expected in (
            ("away", 0.0, ("away", False, None, 0.0, False)),
            ("away", 59.0, ("away", False, None, 59.0, False)),
            ("refused", 1.0, ("refused", False, None, 60.0, True)),
            ("", 5.0, ("", True, 0.0, 0.0, False)),
            ("", 500.0, ("", True, 0.0, 0.0, False)),
            ("cut", 0.0, ("cut", False, 0.0, 0.0, False)),
            ("away\n", 7.0, ("away\\n", False, 7.0, 7.0, False)),
        ):
            self.seconds += after
            self.file.report(why)
            self.assertEqual(self.states(), [expected])
        [source] = reported_sources(load(self.rules))
        told = f"provider {self.path}: no good answer for 1 min 8 s: away\\n; what was known stays in use"
        self.assertIn(told, source.state(self.seconds + 61).sentence)
        self.assertEqual(self.hidden.stat().st_mode & 0o777, 0o644)
        self.file.report("away")
        self.file.close()  # the provider has ended
        self.assertEqual((self.hidden.exists(), self.states()), (True, []))
        self.file.close()

    def test_files_that_are_none(self) -> None:
        self.file.report("")
        for text in ("", "[1]", "{}", '{"why": 1, "since": "x", "has_answered": 1}', "[" * 9999):
            with self.hidden.open("w") as file:  # the same one, which stays locked
                file.write(text)
            self.assertEqual(self.states(), [], text)
        seen = set()
        for why in ("", "", "away", "away", ""):  # it is written when it changes
            self.file.report(why)
            its = self.hidden.stat()
            seen.add((its.st_ino, its.st_mtime_ns))
        self.assertEqual(len(seen), 3)

    def test_files_of_others(self) -> None:
        """Who may write to a folder says nothing of others' files there, by a link neither, and not too much of files that are not there."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        self.file.report("away")
        self.path.write_text("[backend b]\nserver = 127.0.0.1:1\n")
        for its, author, is_known in (
            (12345, 12345, True), (12345, 0, False), (12345, 12346, False), (0, 12345, True),
        ):  # fmt: skip
            os.chown(self.path, author, -1)
            os.chown(self.hidden, its, -1)
            self.assertEqual(len(self.states()), is_known, (its, author))
        self.hidden.rename(self.folder / "elsewhere")
        self.hidden.symlink_to(self.folder / "elsewhere")
        self.assertEqual(self.states(), [])
        for number in range(20):
            file = self.enterContext(closing(StateFile(self.folder / f"p/{number}.ini")))
            file.report("away")
            os.chown(self.folder / f"p/.{number}.ini.state", 12345, -1)
        self.assertEqual(len(reported_sources(load(self.rules))), 16)

    def test_files_of_several_kinds(self) -> None:
        self.path = self.folder / "p/single"
        file = self.enterContext(closing(StateFile(self.path)))
        file.report("away")
        self.assertEqual([why for why, *_ in self.states()], ["away"])
        made_later = self.folder / "none/p/own.ini"
        file = self.enterContext(closing(StateFile(made_later)))
        file.report("away")
        (self.folder / "none").mkdir()
        file.report("away")
        self.assertTrue((self.folder / "none/p/.own.ini.state").exists())
