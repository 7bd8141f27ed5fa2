"""What Redis and other machines have written is told as what others have; see `tests/test_errors.py`."""

from collections.abc import Iterator

from twisted.internet.task import Clock

from tests.features.sharing.machine import Machine
from tests.test_errors import NamedCase, logged, refused
from txmux.access.bans import Ban
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.redis import ReplyError, ReplyParser
from txmux.features.sharing.store import Store
from txmux.wire import codec

_STORE = Store("redis://192.0.2.1", "192.0.2.1")


class NamedTests(NamedCase):
    def test_all(self) -> None:
        self.assert_harmless("Redis, and other machines by it", _redis)


def _redis(text: str) -> Iterator[str]:
    clock = Clock()
    shared = SharedBans(clock, _STORE, Machine().bans)
    shared._is_away("refused")
    clock.advance(9)
    yield from logged(shared._is_away, text)
    yield str(ReplyError(text))
    yield from refused(list, ReplyParser().feed(text.encode() + b"\r\n"))
    record = {"network": "192.0.2.7", "age": 1, "left": None, "reason": text}
    yield codec.read(Ban, record).reason
