import contextlib
import io
import os
import stat
import sys

from tests.support.kit import CommandTestCase, change_constants

UGLY = "[listen a]\nendpoint=:8443\n\n\n\nsilent=close\n# web\n[backend web]\nserver=h:1\n    h:2\n"
PLAIN = "[listen a]\nendpoint = :8443\n\nsilent   = close\n\n# web\n[backend web]\nserver = h:1\n    h:2\n"
BAD = "[listen a]\nendpoint=443\n"
WHY = ":2: [listen a] endpoint: '443' is not an endpoint; did you mean ':443'?\n"


class FmtTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.write("rules.ini", UGLY)

    def of_input(self, text: str | bytes, *options: str) -> tuple[int, str, str]:
        data = text if isinstance(text, bytes) else text.encode()
        change_constants(self, sys, stdin=io.TextIOWrapper(io.BytesIO(data)))
        return self.run_main("fmt", *options, "-")

    def identity(self) -> tuple[int, ...]:
        """Tell which file it is, and when it was changed last. That it is read may be noted in it."""
        status = self.path.stat()
        return status.st_ino, status.st_mode, status.st_mtime_ns, status.st_ctime_ns

    def test_rewritten_once_in_place(self) -> None:
        self.assertEqual(self.of_input(UGLY), (0, PLAIN, ""))
        self.assertEqual(self.run_main("fmt", self.path), (0, "", ""))
        self.assertEqual(self.path.read_text(), PLAIN)
        before = self.identity()
        self.assertEqual(self.run_main("fmt", self.path), (0, "", ""))
        self.assertEqual(self.identity(), before)
        self.assertEqual([*self.folder.iterdir()], [self.path])
        # A plain file has no difference.
        self.assertEqual(self.run_main("fmt", "--check", self.path), (0, "", ""))
        self.assertEqual(self.of_input(PLAIN, "--check"), (0, "", ""))
        # A byte order mark and line ends are one.
        for data in (b"\xef\xbb\xbf" + PLAIN.encode(), PLAIN.replace("\n", "\r\n").encode()):
            code, _, err = self.of_input(data, "--check")
            self.assertEqual((code, err), (1, ""))
            self.assertEqual(self.of_input(data), (0, PLAIN, ""))
        code, out, _ = self.of_input(PLAIN.rstrip(), "--check")
        self.assertEqual(code, 1)
        self.assertIn("-    h:2\n\\ No newline at end of file\n+    h:2\n", out)

    def test_difference_and_exit_code_1_with_check(self) -> None:
        code, out, err = self.run_main("fmt", "--check", self.path)
        self.assertEqual((code, err), (1, ""))
        self.assertEqual(self.path.read_text(), UGLY)
        self.assertTrue(out.startswith(f"--- {self.path}\n+++ {self.path} (formatted)\n@@ "), out)
        self.assertIn("\n-endpoint=:8443\n+endpoint = :8443\n", out)
        self.assertEqual(self.of_input(UGLY, "--check")[0], 1)
        # A full disk leaves the file as it was.
        self.fill_disk()
        code, out, err = self.run_main("fmt", self.path)
        self.assertEqual((code, out), (1, ""))
        told = f"txmux: {self.path} cannot be written: No space left on device; it is unchanged."
        self.assertTrue(err.startswith(told), err)
        self.assertEqual(self.path.read_text(), UGLY)
        self.assertEqual([*self.folder.iterdir()], [self.path])

    def test_routes_that_name_no_listener_are_put_under_all_with_fix(self) -> None:
        route, head = "[route {}]\nmatch=ssh\n{}backend=close", "[listen a]\nendpoint=:1\n"
        one = f"{head}{route.format('r', '')}\n"
        self.assertNotIn("under", self.of_input(one, "--fix")[1])
        several = f"{one}[listen b]\nendpoint=:2\n{route.format('s', 'under=b' + chr(10))}\n"
        several += "[route t]\n# who\nmatch=any\nbackend=close"
        self.assertNotIn("*", self.of_input(several)[1])
        out = self.told(0, self.of_input(several, "--fix"))
        self.assertEqual(
            out[out.index("[route r]") :],
            "[route r]\nunder   = *\nmatch   = ssh\nbackend = close\n\n[listen b]\nendpoint = :2\n\n"
            "[route s]\nmatch   = ssh\nunder   = b\nbackend = close\n\n"
            "[route t]\nunder   = *\n# who\nmatch   = any\nbackend = close\n",
        )
        self.assertEqual(self.of_input(out, "--fix"), (0, out, ""))

    def test_file_with_errors_is_left_alone_and_others_are_not(self) -> None:
        bad = self.write("bad.ini", BAD)
        self.assertEqual(self.run_main("fmt", bad, self.path), (78, "", f"{bad}{WHY}"))
        self.assertEqual(bad.read_text(), BAD)
        self.assertEqual(self.path.read_text(), PLAIN)
        self.assertEqual(self.of_input(BAD), (78, "", f"<stdin>{WHY}"))
        self.assertEqual(self.run_main("fmt", "--check", bad), (78, "", f"{bad}{WHY}"))
        # What is no file.
        for path, why in (
            ("no/such.ini", "cannot be read: No such file or directory"),
            (self.folder, "is not a regular file; write - for the standard input"),
        ):
            self.assertEqual(self.run_main("fmt", path), (78, "", f"{path}: {why}\n"))

    def test_included_file_alone_and_including_file(self) -> None:
        part = self.write("part.ini", "[route r]\nmatch=ssh\nbackend=elsewhere\n")
        main = self.write("main.ini", f"[txmux]\ninclude=part.ini\n{UGLY}")
        self.assertEqual(self.run_main("fmt", main), (0, "", ""))
        self.assertEqual(part.read_text(), "[route r]\nmatch=ssh\nbackend=elsewhere\n")
        self.assertEqual(main.read_text(), f"[txmux]\ninclude = part.ini\n\n{PLAIN}")
        self.assertEqual(self.run_main("fmt", part), (0, "", ""))
        self.assertEqual(part.read_text(), "[route r]\nmatch   = ssh\nbackend = elsewhere\n")

    def test_what_stays(self) -> None:
        """The mode of a file and links, the owner where root can give it away, and extended attributes where there are such."""
        link = self.folder / "link.ini"
        link.symlink_to(self.path)
        owner = self.path.stat().st_uid if os.geteuid() else 12345
        os.chown(self.path, owner, -1 if os.geteuid() else 12346)
        group = self.path.stat().st_gid
        with contextlib.suppress(OSError):
            os.setxattr(self.path, "user.txmux", b"kept")
        attributes = os.listxattr(self.path)
        self.path.chmod(0o640)
        self.assertEqual(self.run_main("fmt", link), (0, "", ""))
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.read_text(), PLAIN)
        status = self.path.stat()
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o640)
        self.assertEqual((status.st_uid, status.st_gid), (owner, group))
        self.assertEqual(os.listxattr(self.path), attributes)
        if "user.txmux" in attributes:
            self.assertEqual(os.getxattr(self.path, "user.txmux"), b"kept")
