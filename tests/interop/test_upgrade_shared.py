"""An upgrade of one of several machines that share limits through a real Redis."""

from tests.interop.children import eventually, output_of
from tests.interop.servers import start_redis
from tests.processes.upgrading import UpgradeTestCase
from tests.support.folders import make_folder
from tests.support.proc import workers_of


class SharedLimitsTest(UpgradeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.redis = start_redis(make_folder(self))
        self.addCleanup(self.redis.end)

    def cli(self, *words: str) -> bytes:
        return output_of("redis-cli", "-p", str(self.redis.port), *words)

    def reported(self) -> list[int]:
        """Return the number that each machine reports for the one source."""
        code = """\
local found = {}
for _, key in ipairs(redis.call('KEYS', '*:sources:*')) do
  for _, report in ipairs(redis.call('HVALS', key)) do
    found[#found + 1] = string.byte(report, -4)
  end
end
return found"""
        return [int(word) for word in self.cli("EVAL", code, "0").split()]

    def test_connections_count_once(self) -> None:
        """The new process has the machine's name, so that those which have moved are not another machine's, too."""
        listening = self.backend()
        rules = self.relaying(listening, "max_connections_per_source = 10")
        mux = self.upgrading(
            rules, f"drain_timeout = 10m\nshared_limits = redis://127.0.0.1:{self.redis.port}/0"
        )
        pairs = [self.relayed(mux, listening) for _ in range(6)]
        eventually(lambda: self.reported() == [6], "six are reported")
        mux.upgrade()
        self.assertEqual(len(workers_of(mux.pid)), 1)
        pairs += [self.relayed(mux, listening) for _ in range(2)]
        eventually(lambda: self.reported() == [8], "one machine reports eight")
        pairs += [self.relayed(mux, listening) for _ in range(2)]
        with mux.connect() as client:
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(mux.take_one()["reason"], "limit")
        eventually(lambda: self.reported() == [10], "one machine reports ten")
        self.all_end(pairs)
