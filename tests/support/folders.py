from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.undone import Cleans


def make_folder(test: Cleans) -> Path:
    """Make an empty folder, which is gone when the test ends; its path is short, as those of UNIX sockets have to be."""
    folder = TemporaryDirectory(prefix="txmux-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)
