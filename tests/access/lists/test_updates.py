"""Tests of what is told of networks that are not up to date."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from tests.support.places import country, write_places
from txmux.access.lists.updates import ListUpdates
from txmux.rules.reading.parser import load

if TYPE_CHECKING:
    from txmux.rules.model import Rules

_LONG_AGO = 1_000_000_000


class StaleTests(SynchronousTestCase):
    """Files that are wrong for some time."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.list = self.folder / "list.txt"
        self.clock = Clock()
        self.published: list[dict[str, Any]] = []
        self.feeding = ListUpdates(self.clock, self.published.append)
        self.addCleanup(self.feeding.stop)

    def rules(self, listener: str, settings: str = "") -> Rules:
        path = self.folder / "rules.ini"
        path.write_text(f"[txmux]\n{settings}[listen x]\nendpoint = 127.0.0.1:0\n{listener}")
        return load(path)

    def after(self, seconds: int) -> list[str]:
        self.clock.pump([1.0] * seconds)
        return self.feeding.problems

    def use_list(self) -> None:
        """Look at a list that was written long ago, by a link."""
        target = self.folder / "target.txt"
        target.write_text("192.0.2.1\n")
        os.utime(target, (_LONG_AGO, _LONG_AGO))
        self.list.symlink_to(target)
        self.feeding.use(self.rules("deny = @list.txt\n"))
        self.after(8)

    def test_missing_list_is_reported_after_a_minute_until_it_is_back(self) -> None:
        self.use_list()
        self.list.unlink()
        self.assertEqual(self.after(60), [])
        (told,) = self.after(120)
        self.assertIn(
            f"networks of file:{self.list} have not been up to date for 2 min 56 s: ", told
        )
        self.assertIn("No such file", told)
        self.list.symlink_to("target.txt")
        self.assertEqual(self.after(4), [])
        self.list.unlink()
        self.assertEqual(self.after(60), [])
        self.assertEqual(self.published, [])

    def test_list_that_rules_dropped_is_not_reported(self) -> None:
        self.use_list()
        self.list.unlink()
        self.assertEqual(len(self.after(70)), 1)
        self.feeding.use(self.rules("deny = 192.0.2.1\n"))
        self.assertEqual(self.feeding.problems, [])

    def test_unexpected_error_is_reported(self) -> None:
        self.use_list()
        (looked_at,) = self.feeding._watched.values()
        self.patch(looked_at, "source", None)
        (told,) = self.after(70)
        self.assertIn("NoneType", told)
        self.assertTrue(self.flushLoggedErrors(AttributeError))

    def test_bad_or_missing_database_is_reported(self) -> None:
        path = self.folder / "c.mmdb"
        places = {"127.0.0.0/8": country("FR")}
        write_places(path, places)
        self.feeding.use(self.rules("deny = geo:country=FR\n", "geo_databases = c.mmdb\n"))
        for seconds in (8, 120):
            self.assertEqual(self.after(seconds), [])
        path.write_text("nonsense")
        (told,) = self.after(70)
        self.assertIn(f"networks of geo:{path} have not been up to date for ", told)
        self.assertIn("is not a database in MaxMind's format", told)
        write_places(path, places)
        self.assertEqual(self.after(4), [])
        path.unlink()
        (told,) = self.after(70)
        self.assertIn("No such file", told)
