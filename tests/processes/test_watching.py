"""The look at the files of rules."""

import errno
import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_privileges import require_root
from tests.support.kit import change_constants, make_folder
from tests.support.privileges import as_nobody
from txmux.files import use_helper
from txmux.processes import watching
from txmux.processes.watching import RulesWatch
from txmux.rules.model import Files, Rules
from txmux.rules.reading import context
from txmux.rules.reading.parser import load, retaken
from txmux.rules.reading.units import UntakenUnits, changed_units
from txmux.telemetry.steps import RecurringSteps


class RulesWatchTest(SynchronousTestCase):
    def rules(self, include: str = "*.conf") -> tuple[Path, Path]:
        """Return a folder, and rules in it that include some."""
        folder = make_folder(self)
        folder.chmod(0o755)
        path = folder / "rules.ini"
        path.write_text(f"[txmux]\ninclude = {include}\n[listen x]\nendpoint = 127.0.0.1:0\n")
        return folder, path

    def units(self) -> tuple[Path, Path, Path]:
        """Return a folder, rules in it, and an empty folder whose files these include."""
        folder, path = self.rules("d/*.ini")
        (folder / "d").mkdir()
        return folder, path, folder / "d"

    def test_goes_on_after_an_error(self) -> None:
        """There may be no thread for a look, no memory, or no descriptor: there is for another one. That says nothing of the files."""
        for problem, failing in (
            (RuntimeError("can't start new thread"), ["look at the rules' files"]),
            (OSError(errno.EMFILE, "Too many open files"), []),
        ):
            clock, steps, looks = Clock(), RecurringSteps(), list[float]()

            async def fail(*_: object) -> str:
                looks.append(clock.seconds())  # noqa: B023
                raise problem  # noqa: B023

            self.patch(watching, "in_thread", fail)
            watch = RulesWatch(clock, lambda: True, steps)
            watch.commit(load(self.rules()[1]))
            clock.pump([1.0] * 12)
            self.assertEqual(looks, [4, 8, 12])
            self.assertEqual([*steps.failing], failing)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), len(failing))
            self.assertFalse(watch.has_changed)
            watch.stop()
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_file_that_is_included_twice(self) -> None:
        """It is read once, as when rules are read."""
        folder, path = self.rules("*.conf\n    a*")
        other = folder / "a.conf"
        (folder / "b.conf").symlink_to(other)
        other.write_text("[backend a]\nserver = 127.0.0.1:1\n")
        rules = load(path)
        self.assertTrue(self.is_same(folder, rules))
        other.write_text("[backend a]\nserver = 127.0.0.1:2\n")
        self.assertFalse(self.is_same(folder, rules))

    def test_removal_that_is_held_back(self) -> None:
        """It is no change again, also where the path of the rules is relative."""
        path = Path(os.path.relpath(self.rules()[1]))
        unit = path.with_name("a.conf")
        unit.write_text("[backend a]\nserver = 127.0.0.1:1\n")
        before = load(path).files
        unit.unlink()
        rules, held = load(path), UntakenUnits(before)
        held.problems.update((name, (problem,)) for name, problem in changed_units(rules, before))
        files = retaken(rules, held).files
        self.assertEqual([*files.untaken], [str(unit)])
        loaded = watching.loaded_digest(files)
        self.assertEqual(watching.current_digest(Path.cwd(), files), loaded)

    def test_list_that_a_unit_lacks(self) -> None:
        """Such as one that is written after the rules that name it: it is a change when it is there, and when it is another."""
        folder, path = self.rules()
        unit, networks = folder / "a.conf", folder / "networks"
        unit.write_text("[listen y]\nendpoint = 127.0.0.1:0\nallow = @networks\n")
        for text, is_taken in (("", False), ("worse\n", False), ("too large\n", False), ("::/0\n", True)):  # fmt: skip
            if text:
                rules = load(path)
                self.assertEqual([*rules.files.untaken], [str(unit)])
                self.assertTrue(self.is_same(folder, rules))
                networks.write_text(text)
                self.assertFalse(self.is_same(folder, rules))
            rules = load(path)
            self.assertEqual(not rules.files.untaken, is_taken)
            taken = retaken(rules, UntakenUnits(Files()))  # as in a service
            self.assertTrue(self.is_same(folder, taken))
        unit.write_text("[backend y]\nserver = 127.0.0.1:1\nvia = http://u:secret@127.0.0.1:2\n")
        rules = load(path)
        self.assertTrue(self.is_same(folder, rules))
        (folder / "secret").write_text("secret\n")
        self.assertFalse(self.is_same(folder, rules))

    def test_lists_that_stay_of_no_use(self) -> None:
        """They are no change, though this process could read more than rules may name, or never reads the same again."""
        folder, path = self.rules()
        unit = folder / "a.conf"
        (folder / "large").write_text("192.0.2.0/24\n")
        change_constants(self, context, LARGEST_LIST=8)
        for name in ("large", "/proc/uptime", "/proc"):
            unit.write_text(f"[listen y]\nendpoint = 127.0.0.1:0\nallow = @{name}\n")
            rules = load(path)
            self.assertEqual([*rules.files.lacking], [str(folder / name)])
            self.assertTrue(self.is_same(folder, rules))

    def watched(self, path: Path, write: Any) -> tuple[Clock, list[float], RulesWatch]:
        """Watch rules, and write something before each look; return when they were reloaded, too."""
        clock, reloads = Clock(), list[float]()

        async def look(function: Any, *arguments: Any) -> Any:
            write()
            return function(*arguments)

        def reload() -> bool:
            reloads.append(clock.seconds())
            watch.commit(load(path))
            return True

        self.patch(watching, "in_thread", look)
        watch = RulesWatch(clock, reload, RecurringSteps())
        self.addCleanup(watch.stop)
        watch.commit(load(path))
        return clock, reloads, watch

    def test_file_that_is_written_all_the_time(self) -> None:
        """One that a unit names as its list keeps no change of others from being loaded, and is none itself."""
        folder, path = self.rules("*.conf\nwatch_rules = 1s")
        log = folder / "log"
        (folder / "a.conf").write_text("[listen y]\nendpoint = 127.0.0.1:0\nallow = @log\n")
        log.write_text("worse\n")

        def write() -> None:
            with log.open("a") as file:
                file.write("worse\n")

        clock, reloads, _ = self.watched(path, write)
        clock.pump([1.0] * 5)
        self.assertEqual(reloads, [])
        path.write_text(f"{path.read_text()}[backend b]\nserver = 127.0.0.1:1\n")
        clock.pump([1.0] * 5)
        self.assertEqual(reloads, [7.0])

    def test_rules_that_are_written_all_the_time(self) -> None:
        """What an owner does not stop writing holds up the changes of others for a while, then no more; what the operator writes is read when it is whole."""
        folder, path, included = self.units()
        path.write_text(path.read_text().replace("[listen", "watch_rules = 1s\n[listen"))
        unit, other = included / "a.ini", included / "b.ini"
        written: list[Path] = []

        def write() -> None:
            for file in written:
                # In the folder another one each time.
                one = file / f"{clock.seconds()}.ini" if file == included else file
                with one.open("a") as it:
                    it.write("# more\n")

        clock, reloads, watch = self.watched(path, write)

        def change(file: Path, seconds: int) -> list[float]:
            reloads.clear()
            began = clock.seconds()
            file.write_text(f"# {began}\n")
            clock.pump([1.0] * seconds)
            return [at - began for at in reloads]

        self.assertEqual(change(unit, 5), [2.0])
        written.append(other)
        self.assertEqual(change(unit, 20), [9.0])
        self.assertTrue(watch.has_changed)
        self.assertEqual(change(unit, 5), [2.0])
        self.assertEqual(change(included / "new.ini", 5), [2.0])
        written.clear()
        self.assertEqual(change(folder / "unused", 5), [2.0])
        self.assertFalse(watch.has_changed)
        written.append(included)
        self.assertEqual(change(unit, 20)[0], 9.0)
        self.assertIn(2.0, change(unit, 5))
        written.append(path)
        self.assertEqual(change(unit, 30), [])
        written.clear()
        path.write_text(path.read_text().replace("watch_rules = 1s", "watch_rules = 30s"))
        clock.pump([1.0] * 5)
        unit.write_text("# a change that is seen at the next look, and read at the one after it\n")
        clock.advance(30.0)
        self.assertFalse(watch.has_changed)

    def test_links_that_are_not_followed(self) -> None:
        """A unit that becomes a link to the rules or to another unit is reloaded once, and means what it means at a start."""
        folder, path, included = self.units()
        unit = included / "a.ini"
        (unit.parent / "b.ini").write_text("[backend b]\nserver = 127.0.0.1:1\n")
        for target in (path, unit.parent / "b.ini"):
            for owner in (0, 12345):
                unit.write_text("[backend a]\nserver = 127.0.0.1:1\n")
                before = load(path)
                unit.unlink()
                unit.symlink_to(target)
                if not os.geteuid():
                    os.chown(unit, owner, -1, follow_symlinks=False)
                self.assertFalse(self.is_same(folder, before))
                rules = load(path, in_force=before.files)
                self.assertTrue(self.is_same(folder, rules))
                self.assertEqual(rules.files.untaken.keys(), load(path).files.untaken.keys())
                unit.unlink()

    def test_link_that_only_the_helper_refuses(self) -> None:
        """Beside it, a user who is not root follows the same links, so that the rules are the same for both."""
        require_root()
        folder, path, included = self.units()
        unit = included / "a.ini"
        (folder / "other").write_text("[backend a]\nserver = 127.0.0.1:1\n")
        unit.symlink_to(folder / "other")
        included.chmod(0o755)
        os.chown(unit, 12345, -1, follow_symlinks=False)
        rules = load(path)
        self.assertEqual([*rules.files.untaken], [str(unit)])
        use_helper(_refuse)
        self.addCleanup(use_helper, None)
        self.assertTrue(self.is_same(folder, rules))

    def test_folder_that_may_not_be_listed(self) -> None:
        """As one of root's, where the service has become another user: its files are the same until one is seen to be another."""
        folder, path, included = self.units()
        for name in ("a", "b"):
            (included / f"{name}.ini").write_text(f"[backend {name}]\nserver = 127.0.0.1:1\n")
        rules = load(path)
        included.chmod(0o311)
        self.addCleanup(included.chmod, 0o755)
        self.assertTrue(self.is_same(folder, rules))
        (included / "a.ini").rename(folder / "a.ini")
        self.assertFalse(self.is_same(folder, rules))
        (folder / "a.ini").rename(included / "a.ini")
        self.assertTrue(self.is_same(folder, rules))
        (included / "b.ini").write_text("[backend b]\nserver = 127.0.0.1:2\n")
        self.assertFalse(self.is_same(folder, rules))

    def test_folder_that_is_closed(self) -> None:
        """Rules that were read while a folder was closed are the same until it is not; one is seen that becomes closed, unless the helper may list it."""
        folder, path, included = self.units()
        self.addCleanup(included.chmod, 0o755)
        self.addCleanup(use_helper, None)
        open_ones = as_nobody(lambda: load(path))
        for mode in (0, 0o111, 0o444):
            with self.subTest(mode=oct(mode)):
                included.chmod(mode)
                closed = as_nobody(lambda: load(path))
                for _ in range(2):
                    self.assertTrue(self.is_same(folder, closed))
                    closed = as_nobody(lambda: load(path, in_force=closed.files))  # noqa: B023
                is_listed = mode == 0o444
                self.assertEqual(self.is_same(folder, open_ones), is_listed)
                use_helper(_refuse)
                self.assertTrue(self.is_same(folder, open_ones))
                unseen = as_nobody(lambda: watching.unwatched(folder, open_ones.files))
                self.assertEqual(unseen, [str(included)] * (not is_listed))
                use_helper(None)
                included.chmod(0o755)
                self.assertEqual(self.is_same(folder, closed), is_listed)
                self.assertTrue(self.is_same(folder, open_ones))

    def is_same(self, folder: Path, rules: Rules) -> bool:
        digest = as_nobody(lambda: watching.current_digest(folder, rules.files))
        return bool(digest == watching.loaded_digest(rules.files))


def _refuse(path: Path, _: int) -> int:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))
