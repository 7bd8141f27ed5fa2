"""What retires, and is needed again before it has ended."""

from __future__ import annotations

from tests.processes.reloading import ReloadingTestCase


class ReturningTest(ReloadingTestCase):
    """Reloads that follow one another while processes end."""

    def test_about_to_end(self) -> None:
        """A worker that was told to end, and has not yet, is not taken for one that can serve again."""
        mux, server = self.begin(3)
        for before, count in ((3, 2), (2, 3), (3, 1), (1, 3)) * 4:
            self.reload(mux, self.workers(before, count))
            client, end = self.relayed(mux, server)
            client.close()
            end.close()
        self.assertNotIn("another one is started", mux.child.output)
        self.assertNotIn("warn]", mux.child.output)
