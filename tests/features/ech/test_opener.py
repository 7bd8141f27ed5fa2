"""The helper that keeps the privilege opens the keys of a folder."""

import os

from tests.processes.test_opener import OpenerCase
from txmux.net.channel import messages


class FolderTest(OpenerCase):
    def test_folder(self) -> None:
        """Of a folder with keys, its keys are read and its names, and nothing above it, below it or beside it."""
        folder = self.folder / "ech"
        (folder / "below.pem").mkdir(parents=True)
        for name in ("a.pem", "b.ech", "notes", ".hidden.pem"):
            (folder / name).write_text(name)
        (self.folder / "beside.pem").write_text("x")
        self.write(f"127.0.0.1:0\nech_keys = {folder}")
        self.opener.read_rules()
        for name in ("a.pem", "b.ech"):
            self.assertEqual(self.text(folder / name), name)
        listed = self.opener.open_file(folder)
        self.addCleanup(os.close, listed)
        self.assertIn("a.pem", os.listdir(listed))  # noqa: PTH208 - a descriptor
        for name in (
            *(
                "..", ".", "", "./", "notes", ".hidden.pem", "below.pem", "below.pem/..",
                "../beside.pem",
            ),
            *("../ech/a.pem", "./a.pem", "/a.pem", "a.pem/", "..pem", ".pem", "../ech"),
        ):  # fmt: skip
            with self.assertRaises(PermissionError, msg=name):
                # As no client of the helper does, which makes the path a plain one.
                os.close(
                    self.opener._descriptor(messages.OPEN, path=f"{folder}/{name}", write=False)
                )
