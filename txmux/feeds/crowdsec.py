"""Asking a CrowdSec who is banned, as its bouncers do.

Source: CrowdSec, Local API, ``GET /v1/decisions/stream``: first with ``startup=true``, then what has changed since.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.web.client import Agent, ResponseDone
from twisted.web.http_headers import Headers

from txmux.errors import MuxError
from txmux.feeds.decisions import Decisions
from txmux.files import read_bytes
from txmux.networks.packing import pack
from txmux.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from twisted.python.failure import Failure

    from txmux.networks.packing import Packed

__all__ = ["CrowdSec"]

_PATH = "/v1/decisions/stream?startup={startup}&scopes=ip,range"
_PATIENCE = 10.0
"""Seconds that an answer may take."""

_MOST_BYTES = 1 << 26
_LONGEST_WAIT = 8  # times of the look, after failures: 80 s


class _AwayError(MuxError):
    """There is no answer that can be used."""


class CrowdSec:
    """Asks one CrowdSec, which takes notes of who has been told what: the key must be for this service alone.

    Args:
        reactor: Connects, and tells the time.
        url: Where it is.
        key: The file with its key.
    """

    _log = Logger()

    def __init__(self, reactor: Any, url: str, key: Path) -> None:
        self._reactor = reactor
        self._url = url
        self._key = key
        self._agent = Agent(reactor, connectTimeout=_PATIENCE / 2)
        self._decisions = Decisions()
        self._is_known = False
        self._is_away = False
        self._skip = self._failed = 0
        self._last: Packed | None = None

    async def look(self) -> Packed | None:
        """Ask what has changed, and give who is banned now, if these are others."""
        if self._skip:
            self._skip -= 1
        else:
            await self._ask()
        if not self._is_known and self._last is None:
            return None  # nothing was ever told, and what another process has found holds
        networks = self._decisions.networks(self._reactor.seconds())
        packed = pack(networks)
        if packed == self._last:
            return None
        self._last = packed
        return packed

    async def _ask(self) -> None:
        try:
            told = await self._answer()
            take_in = self._decisions.change if self._is_known else self._decisions.replace
            take_in(told, self._reactor.seconds())
        except (MuxError, ValueError) as problem:
            # What it has told to nobody it will not tell again, unless it is asked for all.
            self._is_known = False
            self._failed += 1
            self._skip = min(2**self._failed // 2, _LONGEST_WAIT) - 1
            if not self._is_away:
                self._is_away = True
                told_of = "CrowdSec at {url}: {problem}; who is banned stays so, it is asked again"
                self._log.error(told_of, url=self._url, problem=problem)
            return
        if self._is_away or not self._is_known:
            self._log.info("CrowdSec at {url} tells who is banned", url=self._url)
        self._is_known, self._is_away = True, False
        self._failed = self._skip = 0

    async def _answer(self) -> Any:
        startup = "false" if self._is_known else "true"
        where = (self._url + _PATH.format(startup=startup)).encode()
        headers = Headers(
            {
                "X-Api-Key": [self._secret()],
                "User-Agent": [f"txmux/{__version__}"],
                "Accept": ["*/*"],
            }
        )
        asking = self._agent.request(b"GET", where, headers)
        asking.addTimeout(_PATIENCE, self._reactor)
        try:
            response = await asking
            body = _Body(_MOST_BYTES)
            response.deliverBody(body)
            body.whole.addTimeout(_PATIENCE, self._reactor, body.too_late)
            data = await body.whole
        except MuxError:
            raise
        except Exception as problem:  # noqa: BLE001 - whatever Twisted makes of it
            raise _AwayError(_why(problem)) from None
        if response.code in {401, 403}:
            raise _AwayError(
                f"it refuses the key in '{self._key}'; make one by 'cscli bouncers add'"
            )
        if response.code != 200:
            raise _AwayError(f"it answers {response.code}")
        try:
            return json.loads(data)
        except ValueError:
            raise _AwayError("its answer is not JSON") from None

    def _secret(self) -> str:
        try:
            secret = read_bytes(self._key).decode().strip()
        except OSError as error:
            raise _AwayError(f"cannot read '{self._key}': {error.strerror}") from None
        except UnicodeDecodeError:
            secret = ""
        if not secret or not secret.isprintable() or not secret.isascii():
            raise _AwayError(f"there is no key in '{self._key}'; write it as the only line")
        return secret


class _Body(Protocol):
    """Takes the body of an answer, which has an end somewhere.

    Args:
        most: The highest number of bytes.

    Attributes:
        whole: Gives it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._break_off())

    def _break_off(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()

    @staticmethod
    def too_late(_: object, seconds: float) -> bytes:
        """Tell that it takes too long."""
        raise _AwayError(f"no whole answer in {seconds:g} s")

    def dataReceived(self, data: bytes) -> None:
        """Take some of it."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._most and not self.whole.called:
            self.whole.errback(_AwayError(f"its answer has more than {self._most} bytes"))
            self._break_off()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note that it is over."""
        if self.whole.called:
            return
        if reason.check(ResponseDone):
            self.whole.callback(b"".join(self._parts))
        else:
            self.whole.errback(_AwayError("its answer breaks off"))


def _why(problem: Exception) -> str:
    """Tell on one line why there is no answer."""
    if isinstance(problem, ConnectError):
        return f"cannot connect: {problem}".rstrip(".")
    reasons = getattr(problem, "reasons", ())
    if any(one.check(CancelledError) for one in reasons) or isinstance(problem, TimeoutError):
        return f"no answer in {_PATIENCE:g} s"
    if reasons:
        return ", ".join(one.getErrorMessage() or one.type.__name__ for one in reasons)
    text = str(problem)
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
