from twisted.trial.unittest import SynchronousTestCase

from txmux.errors import OptionError
from txmux.wire.sizes import option_size


class SizeTests(SynchronousTestCase):
    def test_bytes_or_kib_and_without_the_option_the_default(self) -> None:
        """Anything else is an error that names the option, the range and the default."""
        for text, size in (("10", 10), ("1KiB", 1024), ("4KiB", 4096)):
            self.assertEqual(option_size({"within": text}, "within", 64, range(10, 4097)), size)
        self.assertEqual(option_size({}, "within", 64, range(10, 4097)), 64)
        for text in ("", "9", "4097", "5KiB", "1 KiB", "x", "1e3"):
            error = self.assertRaises(
                OptionError, option_size, {"n": text}, "n", 64, range(10, 4097)
            )
            told = f"n: {text!r} is not a size in range; write one from 10 to 4KiB, such as 64"
            self.assertIn(told, str(error))
