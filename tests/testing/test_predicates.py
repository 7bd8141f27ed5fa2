import gc

from twisted.trial.unittest import SynchronousTestCase

from txmux.testing import calls_in


def _nothing() -> None: ...


def _garbage() -> None:
    kept: list[object] = []
    for _ in range(100):
        kept += [{}]


class CallsTests(SynchronousTestCase):
    def test_calls(self) -> None:
        """All calls count, those of Python's own functions, too."""
        self.assertEqual(calls_in(lambda: (len(b""), len(b""))), calls_in(_nothing) + 2)

    def test_garbage(self) -> None:
        """What the garbage collector does meanwhile does not count, and it goes on afterwards."""

        def note(_phase: str, _info: object) -> None: ...

        gc.callbacks.append(note)
        self.addCleanup(gc.callbacks.remove, note)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(1)
        self.assertEqual(calls_in(_garbage), calls_in(_nothing))
        self.assertTrue(gc.isenabled())
