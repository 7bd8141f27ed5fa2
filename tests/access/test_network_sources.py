"""Files of networks: when they are read again, and what is reported if they are not up to date."""

import errno
import os
import time
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import make_folder, pretend_user
from txmux import files
from txmux.access.dynamic_networks import unpack
from txmux.access.network_sources import ListUpdates, NetworksFile, WatchedFile
from txmux.files import use_helper
from txmux.rules.model import Rules
from txmux.rules.reading.parser import load

_LONG_AGO = 1_000_000_000


class WatchedList:
    """What is watched, with a time that the test moves."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.folder = make_folder(test)
        self.list = self.folder / "list.txt"
        self.clock = Clock()
        self.published: list[dict[str, Any]] = []
        self.feeding = ListUpdates(self.clock, self.published.append)
        test.addCleanup(self.feeding.stop)

    def rules(self, listener: str, settings: str = "") -> Rules:
        path = self.folder / "rules.ini"
        path.write_text(f"[txmux]\n{settings}[listen x]\nendpoint = 127.0.0.1:0\n{listener}")
        return load(path)

    def after(self, seconds: int) -> list[str]:
        self.clock.pump([1.0] * seconds)
        return self.overdue()

    def overdue(self) -> list[str]:
        states = [source.state() for source in self.feeding.sources()]
        return [state.sentence for state in states if state.is_overdue]

    def use_list(self) -> None:
        """Look at a list that was written long ago, by a link."""
        target = self.folder / "target.txt"
        target.write_text("192.0.2.1\n")
        os.utime(target, (_LONG_AGO, _LONG_AGO))
        self.list.symlink_to(target)
        self.feeding.commit(self.rules("deny = @list.txt\n"))
        self.after(8)


class StaleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.its = WatchedList(self)

    def test_missing_list_is_reported_after_a_minute_until_it_is_back_or_dropped(self) -> None:
        self.its.use_list()
        self.its.list.unlink()
        self.assertEqual(self.its.after(60), [])
        (told,) = self.its.after(120)
        self.assertIn(f"networks {self.its.list}: no good answer for 2 min 56 s: ", told)
        self.assertIn("No such file", told)
        self.its.list.symlink_to("target.txt")
        self.assertEqual(self.its.after(4), [])
        self.its.list.unlink()
        self.assertEqual((self.its.after(60), self.its.published), ([], []))
        self.assertEqual(len(self.its.after(70)), 1)
        self.its.feeding.commit(self.its.rules("deny = 192.0.2.1\n"))
        self.assertEqual(self.its.overdue(), [])

    def test_list_is_followed_from_what_rules_have_read(self) -> None:
        """A file that changes to and fro around a reload is what it says in the end."""
        self.its.use_list()
        first, second = self.its.list.read_text(), "192.0.2.7\n"
        rules = self.its.rules("deny = @list.txt\n")
        for text in (second, first, second):
            self.its.list.write_text(text)
            if text == first:
                self.its.feeding.commit(rules)  # as they were read at the start
            else:
                self.its.after(8)
        told = [*map(str, unpack(self.its.published[-1][f"file:{self.its.list}"]))]
        self.assertEqual((told, len(self.its.published)), (["192.0.2.7/32"], 2))

    def test_unexpected_error_is_reported(self) -> None:
        self.its.use_list()
        (looked_at,) = self.its.feeding.watched.values()
        self.patch(looked_at, "source", None)
        (told,) = self.its.after(70)
        self.assertIn("NoneType", told)
        self.assertTrue(self.flushLoggedErrors(AttributeError))


_HOUR = 3600.0


class FilesTests(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.path = self.folder / "list.txt"

    def write(self, text: str, name: str = "list.txt") -> None:
        path = self.folder / name
        path.write_text(text)
        os.utime(path, (_LONG_AGO, _LONG_AGO))

    async def found(self, file: NetworksFile) -> list[str] | None:
        packed = await file.fetch_changes()
        return None if packed is None else [*map(str, unpack(packed))]

    async def test_change_is_published_once_and_comments_are_none(self) -> None:
        self.write("192.0.2.1\n")
        file = NetworksFile(self.path, "192.0.2.1\n")
        self.assertIsNone(await self.found(file))
        self.write("192.0.2.2 # one\n10.0.0.0/8\n")
        self.assertEqual(await self.found(file), ["10.0.0.0/8", "192.0.2.2/32"])
        self.assertIsNone(await self.found(file))

    async def test_link_to_a_file_of_the_same_size_and_time_is_a_change(self) -> None:
        self.write("192.0.2.1\n", "a")
        self.write("192.0.2.2\n", "b")
        self.path.symlink_to("a")
        file = NetworksFile(self.path, "192.0.2.1\n")
        self.assertIsNone(await self.found(file))
        (self.folder / "new").symlink_to("b")
        (self.folder / "new").rename(self.path)
        self.assertEqual(await self.found(file), ["192.0.2.2/32"])

    async def test_file_written_twice_in_a_moment_is_read_again(self) -> None:
        # However long it takes until it is read, it has only just been written.
        just_now = time.time() + _HOUR
        self.path.write_text("192.0.2.1\n")
        os.utime(self.path, (just_now, just_now))
        file = NetworksFile(self.path, "192.0.2.1\n")
        self.assertIsNone(await self.found(file))
        self.path.write_text("192.0.2.2\n")
        os.utime(self.path, (just_now, just_now))
        self.assertEqual(await self.found(file), ["192.0.2.2/32"])

    def test_unchanged_file_is_not_read_nor_by_the_helper(self) -> None:
        self.write("192.0.2.1\n")
        watched = WatchedFile(self.path)
        self.assertEqual(watched.read(), b"192.0.2.1\n")
        self.assertIsNone(watched.read())

        def denied(path: Path, *_: object) -> object:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        self.patch(Path, "stat", denied)
        self.patch(files, "_open_own", denied)
        pretend_user(self, 1)
        use_helper(os.open)
        self.addCleanup(use_helper, None)
        watched = WatchedFile(self.path)
        self.assertEqual(watched.read(), b"192.0.2.1\n")
        self.assertIsNone(watched.read())
        self.path.write_text("192.0.2.2\n")
        self.assertEqual(watched.read(), b"192.0.2.2\n")

    async def test_bad_or_missing_file_changes_nothing(self) -> None:
        file = NetworksFile(self.path, "192.0.2.1\n")
        ends = os.openpty()
        for end in ends:
            self.addCleanup(os.close, end)

        def write_huge() -> None:
            with self.path.open("wb") as huge:
                huge.truncate(1 << 40)

        of_line = "line 2: 'x' is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32"
        irregular = "cannot read it: it is no regular file"
        for make, trouble in (
            (lambda: self.write("192.0.2.1\nx\n"), of_line),
            (lambda: self.write("192.0.2.1\nx\n\n"), of_line),
            (self.path.unlink, "cannot read it: No such file or directory"),
            (lambda: os.mkfifo(self.path), irregular),
            (write_huge, "cannot read it: it is larger than 64 MiB"),
            (lambda: self.path.symlink_to("/dev/zero"), irregular),
            (lambda: self.path.symlink_to(os.ttyname(ends[1])), irregular),
        ):
            make()
            self.assertIsNone(await self.found(file))
            self.assertEqual(file.trouble, trouble)
            if trouble != of_line:
                self.path.unlink(missing_ok=True)
        self.write("192.0.2.3\n")
        with capturedLogs() as events:
            self.assertEqual(await self.found(file), ["192.0.2.3/32"])
        own = [
            one for one in events if one["log_namespace"].startswith("txmux.access.network_sources")
        ]
        self.assertEqual([event["networks"] for event in own], ["1 network"])
