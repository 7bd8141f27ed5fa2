import time
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import change_constants, make_folder
from txmux import files
from txmux.net.secrets import SecretFileError, read_key, read_text, secret_of


class SecretsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_folder(self) / "secret"

    def refused(self, read: Callable[..., str]) -> str:
        problem = self.assertRaises(SecretFileError, read, self.path)
        later = self.failureResultOf(Deferred.fromCoroutine(secret_of(self.path, read)))
        self.assertEqual(str(later.value), str(problem))
        return str(problem)

    def test_files(self) -> None:
        missing = f"cannot read '{self.path}': No such file or directory"
        for read in (read_key, read_text):
            self.assertEqual(self.refused(read), missing)
        for content in (b"", b"\n", b"a\nb", b"\xff"):
            self.path.write_bytes(content)
            self.assertIn(f"'{self.path}' does not hold one line", self.refused(read_text))
        self.path.write_bytes(b" se cr\xc3\xa9t \n")
        self.assertEqual(read_text(self.path), "se cr\u00e9t")
        self.assertIn("does not hold one line", self.refused(read_key))
        for size in (255, 256):
            self.path.write_text(size * "a")
            self.assertEqual(len(read_key(self.path)), size)

    def test_dead_disk(self) -> None:
        self.path.write_text("a")
        change_constants(self, files, _waiting={-1: (time.monotonic() - 60, str(self.path))})
        self.assertIn(
            f"cannot read '{self.path}': its disk has not answered", self.refused(read_key)
        )
