"""``watch_rules``: rules that are reloaded when their files change."""

import os
import shutil
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from tests.support.supervised import LISTEN, SupervisedTestCase

_PERIOD = 10
_SETTLED = 1
_WATCHED = f"[txmux]\nwatch_rules = {_PERIOD}s\naccess_log = LOG\n"


def _exchange(mount: Path, text: str) -> None:
    """Exchange what is in a folder, as the kubelet does."""
    data = mount / "..data"
    old = data.resolve() if data.is_symlink() else None
    new = Path(tempfile.mkdtemp(prefix="..2026_", dir=mount))
    (new / "rules.ini").write_text(text)
    link = mount / "..data_tmp"
    link.symlink_to(new.name)
    link.rename(data)
    if old is None:
        (mount / "rules.ini").symlink_to("..data/rules.ini")
    else:
        shutil.rmtree(old)


class FileTests(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        captured = self.enterContext(closing(ExitStack()))
        self.events = captured.enter_context(capturedLogs())
        self._seen = 0

    async def begin(self, text: str = _WATCHED + LISTEN) -> None:
        await self.run_service(text, use=self.time)

    async def after(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.time.advance(0.5)
            await self.running.control.missing()  # the worker has answered what it was asked
            await self.looked()
        await self.reloading.wait_until_idle()

    async def assert_told(self, seconds: float, *told: str) -> None:
        await self.after(seconds)
        self.assertEqual(self.told(), [*told])

    def told(self) -> list[str]:
        """Give what the log has said of reloads, since it was asked before."""
        found: list[str] = []
        for event in self.events:
            text = event.get("log_format") or ""
            if text.startswith("rules reloaded"):
                found.append(str(event["changes"]))
            elif text.startswith("reload failed"):
                found.append(f"no: {event['errors']}")
        new, self._seen = found[self._seen :], len(found)
        return new

    async def attention(self) -> list[tuple[str, str]]:
        items = (await self.running.control.status())["attention"]
        return [(item["what"], item["level"]) for item in items]

    async def test_change_that_is_not_reloaded(self) -> None:
        plain = "[txmux]\naccess_log = LOG\n" + LISTEN
        await self.begin(plain)
        self.write(plain + "default = reject\n")
        await self.after(5)
        self.assertEqual(await self.attention(), [("rules", "note")])
        reload = ensureDeferred(self.running.reload())
        self.assertFalse(self.running.control.service.has_outdated_rules())  # they are being read
        self.assertEqual((await reload).errors, ())
        self.write(plain)
        await self.after(5)
        self.assertEqual(await self.attention(), [("rules", "note")])
        self.write(plain + "default = reject\n")
        await self.after(5)
        self.assertEqual(await self.attention(), [])
        self.assertEqual(self.told(), ["listener x changed"])
        # A change that cannot be reloaded is said by one item: that which says why.
        self.write(plain + "what\n")
        await self.after(5)
        self.assertFalse((await self.running.reload()).ok)
        await self.after(5)
        self.assertTrue(self.running.control.service.has_outdated_rules())
        self.assertEqual(await self.attention(), [("reload", "warning")])
        self.write(plain)
        self.assertTrue((await self.running.reload()).ok)
        self.assertEqual(await self.attention(), [])

    async def test_change(self) -> None:
        """Changed rules hold within the period and a second, and are read once; rules that stay the same, or are written again, are not read, and a file that somebody still writes only when it has stayed the same for a second."""
        await self.begin()
        whole = _WATCHED + LISTEN + "default = reject\n"
        await self.after(_PERIOD - 0.5)
        for end in range(len(_WATCHED) + 1, len(whole), 4):
            self.write(whole[:end])
            await self.assert_told(_SETTLED / 2)
        self.write(whole)
        await self.assert_told(2 * _SETTLED, "listener x changed")
        await self.assert_told(3 * _PERIOD)
        self.write(self.file.read_text())
        os.utime(self.file, (1, 1))
        await self.assert_told(3 * _PERIOD)
        self.write(_WATCHED + LISTEN)
        await self.assert_told(_PERIOD + _SETTLED, "listener x changed")
        await self.assert_told(3 * _PERIOD)
        self.write(_WATCHED + "what")  # no timer is left after the stop
        await self.running.stopService()
        await self.assert_told(3 * _PERIOD)
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    async def test_off(self) -> None:
        """Without the key nothing is read again; with it, from the reload on that brings it, until one that takes it away."""
        off = _WATCHED.replace(f"{_PERIOD}s", "off")
        await self.begin(off + LISTEN)
        self.write(_WATCHED + LISTEN)
        await self.assert_told(3 * _PERIOD)
        await self.running.reload()
        self.write(off + LISTEN)
        await self.after(_PERIOD + _SETTLED)
        self.assertEqual(len(self.told()), 2)
        self.write(_WATCHED + LISTEN + "default = reject\n")
        await self.assert_told(3 * _PERIOD)

    async def test_bad_and_gone(self) -> None:
        """Rules with errors, or gone, change nothing and are told of once; good ones after them hold, also the same as before."""
        good = _WATCHED + LISTEN
        await self.begin(good)
        for damage, why, then, change in (
            (lambda: self.write(good + "default = nowhere at all\n"), "there is no [backend nowhere at all]", "", "nothing changed"),
            (self.file.unlink, "cannot be read: No such file", "default = reject\n", "listener x changed"),
        ):  # fmt: skip
            before = self.running.control.rules
            damage()
            await self.after(5 * _PERIOD)
            (told,) = self.told()
            self.assertIn(why, told)
            self.assertIs(self.running.control.rules, before)
            self.write(good + then)
            await self.assert_told(_PERIOD + _SETTLED, change)

    async def test_included(self) -> None:
        """Included files count: one that changes, one that a pattern finds now, and one that it finds no more."""
        include = _WATCHED.replace("access_log", "include = more/*.ini\naccess_log")
        folder = self.folder / "more"
        folder.mkdir()
        await self.begin(f"{include}{LISTEN}routes_from = *\n")
        first, second = folder / "a.ini", folder / "b.ini"
        first.write_text("[route a]\nmatch = ssh\nbackend = close\n")
        await self.after(_PERIOD + _SETTLED)
        first.write_text("[route a]\nmatch = tls\nbackend = close\n")
        await self.after(_PERIOD + _SETTLED)
        second.write_text("[route b]\nmatch = dns\nbackend = close\n")
        await self.after(_PERIOD + _SETTLED)
        first.unlink()
        await self.after(_PERIOD + _SETTLED)
        await self.after(3 * _PERIOD)
        changes = ["1 route new (a)", "1 route changed (a)", "1 route new (b)", "1 route gone (a)"]
        self.assertEqual(self.told(), changes)
        second.unlink()
        await self.assert_told(_PERIOD + _SETTLED, "1 route gone (b)")
        # One with an error, or one that cannot be read, is told of once, and read when it has changed.
        for make in (lambda: first.write_text("nothing"), lambda: first.symlink_to("nowhere")):
            make()
            await self.after(5 * _PERIOD)
            [told] = self.told()
            self.assertRegex(told, r"0 of 1 files taken; \S+a.ini is not taken, it is not served: ")
            first.unlink()
            await self.assert_told(_PERIOD + _SETTLED, "nothing changed")

    async def test_swap(self) -> None:
        """A folder as Kubernetes mounts a ConfigMap: each file is a link through ``..data``, a link which is exchanged for all at once.

        Rules of an exchanged folder hold; if the same rules are in it, nothing is read again; wrong ones are told of once.
        """
        mount = self.folder / "mount"
        mount.mkdir()
        self.file = mount / "rules.ini"
        log = str(self.log)
        self.write = lambda text: _exchange(mount, text.replace("LOG", log))  # type: ignore[method-assign]
        await self.begin()
        for outcome in ("reject", "reject", "nowhere at all", "close"):
            self.write(f"{_WATCHED}{LISTEN}default = {outcome}\n")
            await self.after(2 * _PERIOD)
        first, wrong, last = self.told()
        self.assertEqual((first, last), ("listener x changed", "listener x changed"))
        self.assertTrue(wrong.startswith("no: "), wrong)
