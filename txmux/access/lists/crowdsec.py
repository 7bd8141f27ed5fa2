"""Asking a CrowdSec who is banned, as its bouncers do.

Source: CrowdSec, Local API, ``GET /v1/decisions/stream``: first with ``startup=true``, then what has changed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txmux.access.lists.decisions import Decisions
from txmux.access.lists.packing import pack
from txmux.errors import MuxError
from txmux.files import read_secret
from txmux.net.http import NotConnectedError, ResponseTimeoutError, get
from txmux.wire.jsontext import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from txmux.access.lists.packing import Packed

__all__ = ["CrowdSec"]

_PATH = "/v1/decisions/stream?startup={startup}&scopes=ip,range"
_PATIENCE = 10.0
"""Seconds until an answer begins, and for the rest of it."""

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

    Attributes:
        problem: Why it cannot be asked; nothing if it can.
    """

    _log = Logger()

    def __init__(self, reactor: Any, url: str, key: Path) -> None:
        self._reactor = reactor
        self._url = url
        self._key = key
        self._decisions = Decisions()
        self._is_known = False
        self.problem = ""
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
            is_told, self.problem = bool(self.problem), str(problem)
            if not is_told:
                told_of = "CrowdSec at {url}: {problem}; who is banned stays so, it is asked again"
                self._log.error(told_of, url=self._url, problem=problem)
            return
        if self.problem or not self._is_known:
            self._log.info("CrowdSec at {url} tells who is banned", url=self._url)
        self._is_known, self.problem = True, ""
        self._failed = self._skip = 0

    async def _answer(self) -> Any:
        startup = "false" if self._is_known else "true"
        try:
            answer = await get(
                self._reactor,
                self._url + _PATH.format(startup=startup),
                {"X-Api-Key": self._secret(), "Accept": "*/*"},
                seconds=_PATIENCE,
                most=_MOST_BYTES,
                body_seconds=_PATIENCE,
            )
        except NotConnectedError as problem:
            raise _AwayError(f"cannot connect: {problem}") from None
        except ResponseTimeoutError:
            raise _AwayError(f"no answer in {_PATIENCE:g} s") from None
        if answer.status in {401, 403}:
            raise _AwayError(
                f"it refuses the key in '{self._key}'; make one by 'cscli bouncers add'"
            )
        if answer.status != 200:
            raise _AwayError(f"it answers {answer.status}")
        try:
            return parse_json(answer.body)
        except ValueError:
            raise _AwayError("its answer is not JSON") from None

    def _secret(self) -> str:
        try:
            secret = read_secret(self._key)
        except OSError as error:
            raise _AwayError(f"cannot read '{self._key}': {error.strerror}") from None
        if not secret:
            raise _AwayError(f"there is no key in '{self._key}'; write it as the only line")
        return secret
