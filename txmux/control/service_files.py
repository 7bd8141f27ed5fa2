"""The files of all routes, listeners and backends: the supervisor watches them, and sends workers what it uses."""

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from txmux.backends.upstreams import Upstreams
from txmux.client.tls.terminators import TlsTerminators
from txmux.net.turns import outcome_of_look
from txmux.net.watched import FilesInUse, WatchedFiles
from txmux.rules.model import Rules
from txmux.rules.named_files import keys_in_use
from txmux.rules.optional import named

_LONGEST = 0.02  # seconds of each in which looks at files begin
_MANY = 1000  # users of files: some 10 ms


class ServiceFiles:
    """What watches the files; `send` sends workers what is in use when that has changed, and fires when they have it."""

    _log = Logger()

    def __init__(
        self,
        terminators: TlsTerminators,
        upstreams: Upstreams,
        send: Callable[[Mapping[str, FilesInUse]], Awaitable[object]],
    ) -> None:
        self.terminators, self._upstreams, self._send = terminators, upstreams, send
        self._others: dict[tuple[str, Path], WatchedFiles] = {}
        self._prepared: dict[tuple[str, Path], WatchedFiles] = {}
        self._read: list[Callable[[], None]] = []
        self._left: list[WatchedFiles] = []
        self._looking = DeferredLock()

    def prepare(self, rules: Rules) -> None:
        """Read what workers alone use, which may be lacking."""
        self._read = [watched.read_again() for watched in self._others.values()]
        self._prepared = {
            (name, path): self._others.get((name, path)) or maker(name, path)
            for name, path, maker in _of_workers(rules)
        }

    def commit(self) -> None:
        for use in self._read:
            use()
        self._others, self._prepared = self._prepared, {}
        self.send()

    def abandon(self) -> None:
        self._prepared = {}

    def _for_tls(self) -> list[WatchedFiles]:
        return [*self.terminators.watched(), *self._upstreams.watched()]

    def watched(self) -> list[WatchedFiles]:
        return [*self._for_tls(), *{**self._others, **self._prepared}.values()]

    def in_use(self) -> Mapping[str, FilesInUse]:
        return {files.user: files.in_use for files in self.watched()}

    def troubles(self) -> list[str]:
        return [files.trouble for files in self._for_tls() if files.trouble]

    def troubles_of_others(self) -> list[str]:
        others = self._others.values()
        return [*filter(None, (one.trouble or one.wrong for one in others))]

    def lost(self) -> list[dict[str, dict[str, str]]]:
        """Return files in use that may be lacking, and are, of routes and of backends, for the process that takes the place of this one."""
        found: list[dict[str, dict[str, str]]] = [{}, {}]
        for one in self.watched():
            kind, _, name = one.section.strip("[] ").partition(" ")
            if kind != "listen" and one.may_lack and one.trouble and one.made is not None:
                found[kind == "backend"][name] = {
                    str(path): b64encode(one.in_use.read(path)).decode()
                    for path in one.in_use.files
                }
        return found

    def look(self) -> None:
        """Begin to look at files, unless such a look is running; very many take several calls."""
        if not self._looking.locked:
            self._left = self._left or self.watched()
            self._start_look(self._left, _LONGEST)

    async def look_now(self) -> None:
        """Look at all files, and return when all workers have what has changed."""
        [sending] = await self._start_look(self.watched(), inf)
        await sending

    def _start_look(self, left: list[WatchedFiles], longest: float) -> Deferred[Any]:
        return self._looking.run(lambda: Deferred.fromCoroutine(self._look(left, longest)))

    async def _look(self, left: list[WatchedFiles], longest: float) -> list[Awaitable[object]]:
        until, late = perf_counter() + longest, set[str]()
        while left and perf_counter() < until:
            found, problem = await outcome_of_look(_examine, left[:_MANY])
            if found is not None:
                del left[:_MANY]
                for use in found:
                    use()
            elif isinstance(problem, TimeoutError) and problem.filename not in late:
                # The same look again knows that its disk does not answer.
                late.add(problem.filename)
            else:
                left.clear()
                self._log.error("cannot look at files for TLS: {problem}", problem=problem)
        return [self.send()]  # a slow worker must not keep others from being told

    def send(self) -> Awaitable[object]:
        return self._send(self.in_use())


def _of_workers(rules: Rules) -> Iterator[tuple[str, Path, Callable[[str, Path], WatchedFiles]]]:
    for key in keys_in_use(rules):
        for path in key.paths if key.row.files.watcher else ():
            yield key.part.name, path, named(key.row.files.watcher)


def _examine(some: Sequence[WatchedFiles]) -> list[Callable[[], None]]:
    return [*filter(None, (one.examine() for one in some))]


def lost_files(
    of_routes: Mapping[str, Any], of_backends: Mapping[str, Any]
) -> dict[str, FilesInUse]:
    """Read what `ServiceFiles.lost` has returned in another process."""
    return {
        f"[{kind} {name}] ": FilesInUse(
            {Path(path): (0.0, b64decode(text)) for path, text in its.items()}
        )
        for kind, by_name in (("route", of_routes), ("backend", of_backends))
        for name, its in by_name.items()
    }


def pack_files(files: Mapping[str, FilesInUse]) -> dict[str, Any]:
    """Make JSON of them; what several users have is in it once."""
    numbers: dict[bytes, int] = {}
    users = {
        user: [
            its.trouble,
            {
                str(path): [found[0], numbers.setdefault(found[1], len(numbers))]
                for path, found in its.files.items()
            },
        ]
        for user, its in files.items()
    }
    return {"users": users, "contents": [b64encode(data).decode() for data in numbers]}


def unpack_files(packed: Mapping[str, Any]) -> dict[str, FilesInUse]:
    contents = [*map(b64decode, packed.get("contents", ()))]
    return {
        user: FilesInUse(
            {Path(path): (time, contents[number]) for path, (time, number) in its.items()}, trouble
        )
        for user, (trouble, its) in packed.get("users", {}).items()
    }
