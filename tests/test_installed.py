"""Whether other code was installed meanwhile."""

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.installed import InstalledCode
from txmux.version import __version__


class InstalledCodeTest(SynchronousTestCase):
    def test_change(self) -> None:
        """It is other code when a module has changed, is there or is gone; one that vanishes meanwhile is no error."""
        folder = make_folder(self)
        module, version = folder / "sub/module.py", folder / "version.py"
        module.parent.mkdir()
        code = InstalledCode(folder)
        changed = "the installed code has changed since the service started"
        module.symlink_to("nowhere")  # it has a name, but cannot be looked at
        self.assertEqual(code.change(), changed)
        module.unlink()
        self.assertEqual(code.change(), "")
        for text in ("one", "other"):
            code = InstalledCode(folder)
            self.assertEqual(code.change(), "")
            module.write_text(text)
            self.assertEqual(code.change(), changed)
        for text, expected in (
            (f'__version__ = "{__version__}"', changed),
            ('__version__ = "9.0"', f"txmux 9.0 is installed, this service runs {__version__}"),
        ):
            version.write_text(text)
            self.assertEqual(code.change(), expected)
