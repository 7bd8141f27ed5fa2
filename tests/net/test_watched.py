from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.support.folders import make_folder
from txmux.net.tls.errors import TLSFileError
from txmux.net.watched import FilesInUse, WatchedFiles


class SlowFiles(WatchedFiles):
    """Files that take half a second to read, and are wrong while they begin so."""

    _rule = "files"

    def __init__(self, clock: Clock, path: Path) -> None:
        self._clock, self._path, self.readings = clock, path, 0
        super().__init__(clock.seconds, "", [path])

    @override
    def _make(self, files: FilesInUse) -> str:
        self.readings += 1
        self._clock.advance(0.5)
        text = files.read(self._path).decode()
        if text.startswith("wrong"):
            raise TLSFileError(self._rule, "they are wrong")
        return text


class WatchedFilesTest(SynchronousTestCase):
    def test_wrong_files_are_read_again_but_seldom_if_that_takes_long(self) -> None:
        clock, path = Clock(), make_folder(self) / "file"
        path.write_text("right")
        files = SlowFiles(clock, path)
        path.write_text("wrong!")
        with capturedLogs() as logs:
            for _ in range(78):
                clock.advance(1)
                files.look()
        self.assertEqual((files.readings, len(logs)), (5, 1))
        path.write_text("right again")
        clock.advance(1)
        files.look()
        self.assertEqual(files.trouble, "")
