"""Clients as people have them, each a real program, that come again and again or stay."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from campaign.soak.service import ENDED, SITE, Soaked
from tests.interop.children import Child, output_of, run
from tests.interop.quic.content import content
from tests.interop.quic.h3_client import client, configuration

_PAUSE = 0.5
"""Seconds between two things that one says who stays."""


class Traffic:
    """All clients of one round: when it has ended, they have all gone.

    Args:
        soaked: Where to.
        folder: For their files.
        chance: What they say.
        pause: Seconds between two of those that come again and again.

    Attributes:
        made: Connections and flows that they have made, by the route that ought to have taken them.
        problems: What went wrong, a line each.
    """

    def __init__(self, soaked: Soaked, folder: Path, chance: random.Random, pause: float) -> None:
        self._pause = pause
        self._soaked = soaked
        self._folder = folder
        self._port = str(soaked.mux.ports["public"])
        self._over = threading.Event()
        self._noting = threading.Lock()
        self.made: Counter[str] = Counter()
        self.problems: list[str] = []
        visits = (self._ssh, self._scp, self._https, self._ended, self._redis, self._psql, self._h3)
        stays = (self._session, self._subscriber, self._query, self._download, self._h3_stays)
        targets = [(self._again, visit) for visit in visits] + [(self._once, one) for one in stays]
        self._threads = [
            threading.Thread(target=target, args=(act, random.Random(chance.random())), daemon=True)
            for target, act in targets
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let them finish, and go."""
        self._over.set()
        for thread in self._threads:
            thread.join(180)
            if thread.is_alive():
                self.problems.append(f"a client does not come to its end: {thread}")

    def _again(self, visit: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._over.is_set():
            self._once(visit, chance)
            self._over.wait(self._pause)

    def _once(self, act: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            act(chance)
        except Exception as problem:  # noqa: BLE001 - whatever a client complains of is what is looked for
            self.problems.append(f"{act.__name__.strip('_')}: {problem!r}")

    def _note(self, route: str, count: int = 1) -> None:
        with self._noting:
            self.made[route] += count

    @staticmethod
    def _expect(said: object, wanted: object) -> None:
        if said != wanted:
            raise AssertionError(f"{said!r:.100} instead of {wanted!r:.100}")

    # Those that come again and again.

    def _ssh(self, chance: random.Random) -> None:
        self._note("ssh")
        data = chance.randbytes(chance.randrange(2**17))
        options = (*self._soaked.ssh.options, "-p", self._port, "127.0.0.1")
        done = run("ssh", *options, "cat; exit 7", stdin=data)
        self._expect((done.returncode, done.stdout == data, done.stderr), (7, True, b""))

    def _scp(self, chance: random.Random) -> None:
        original, there, back = (self._folder / name for name in ("original", "there", "back"))
        original.write_bytes(chance.randbytes(chance.randrange(2**22)))
        options = ("-q", *self._soaked.ssh.options, "-P", self._port)
        for ends in ((original, f"127.0.0.1:{there}"), (f"127.0.0.1:{there}", back)):
            self._note("ssh")
            output_of("scp", *options, *ends)
        checksum = sha256(original.read_bytes()).digest()
        self._expect(sha256(back.read_bytes()).digest(), checksum)

    def _curl(self, host: str, path: str) -> bytes:
        options = ("-q", "-sS", "--fail", "--cacert", self._soaked.certificate.chain)
        to = ("--resolve", f"{host}:{self._port}:127.0.0.1", f"https://{host}:{self._port}{path}")
        return output_of("curl", *options, *to)

    def _https(self, _: random.Random) -> None:
        self._note("https")
        got = self._curl(SITE, "/file")
        self._expect(sha256(got).hexdigest(), self._soaked.checksum)

    def _ended(self, _: random.Random) -> None:
        self._note("inside")
        got = self._curl(ENDED, "/file")
        self._expect(sha256(got).hexdigest(), self._soaked.checksum)

    def _redis(self, chance: random.Random) -> None:
        value = chance.randbytes(chance.randrange(1, 2**18)).hex().encode()
        self._note("redis", 2)
        options = ("-p", self._port)
        self._expect(output_of("redis-cli", *options, "-x", "set", "key", stdin=value), b"OK\n")
        self._expect(output_of("redis-cli", *options, "get", "key"), value + b"\n")

    def _address(self) -> str:
        to = f"host=127.0.0.1 port={self._port} user=postgres password=secret dbname=postgres"
        return f"{to} sslmode=disable gssencmode=disable connect_timeout=60"

    def _psql(self, chance: random.Random) -> None:
        self._note("postgres")
        count = chance.randrange(20_000)
        query = f"select repeat('x', 99) from generate_series(1, {count})"
        self._expect(len(output_of("psql", "-XAtc", query, self._address())), 100 * count)

    def _h3(self, chance: random.Random) -> None:
        self._note("h3")
        asyncio.run(self._ask(chance.randrange(2**18)))

    async def _ask(self, count: int) -> None:
        async with client(self._soaked.quic, configuration(SITE)) as made:
            answer = await made.get(f"/{count}")
            self._expect(bytes(answer.body), content(SITE, count))

    # Those that stay, over all changes of the round.

    def _session(self, _: random.Random) -> None:
        self._note("ssh")
        options = (*self._soaked.ssh.options, "-p", self._port, "127.0.0.1")
        with self._child("ssh", *options, "cat; exit 7") as session:
            self._talk(session, "line {}\n")
            self._expect(session.wait(), 7)

    def _query(self, _: random.Random) -> None:
        self._note("postgres")
        with self._child("psql", "-XAtq", self._address()) as session:
            self._talk(session, "select 'line {}';\n")
            self._expect(session.wait(), 0)

    def _child(self, program: str, *words: str | Path) -> _Ending:
        return _Ending(Child(program, *words, limit=600, stdin=True))

    def _talk(self, child: Child, words: str) -> None:
        stdin = child.process.stdin
        assert stdin is not None
        number = 0
        while not self._over.wait(_PAUSE) or not number:
            number += 1
            stdin.write(words.format(number).encode())
            stdin.flush()
            child.wait_for(rf"^line {number}$")
        stdin.close()

    def _subscriber(self, _: random.Random) -> None:
        self._note("redis")
        with _Ending(Child("redis-cli", "-p", self._port, "subscribe", "news", limit=600)) as told:
            told.wait_for("subscribe")
            number = 0
            direct = str(self._soaked.redis.port)
            while not self._over.wait(_PAUSE) or not number:
                number += 1
                output_of("redis-cli", "-p", direct, "publish", "news", f"number {number};")
                told.wait_for(f"number {number};")

    def _download(self, _: random.Random) -> None:
        self._note("https")
        got = self._curl(SITE, "/slow/file")
        self._expect(sha256(got).hexdigest(), self._soaked.checksum)

    def _h3_stays(self, _: random.Random) -> None:
        self._note("h3")
        asyncio.run(self._keep_asking())

    async def _keep_asking(self) -> None:
        async with client(self._soaked.quic, configuration(SITE)) as made:
            while not self._over.is_set():
                answer = await made.get("/10000")
                self._expect(bytes(answer.body), content(SITE, 10_000))
                await asyncio.sleep(_PAUSE)


class _Ending:
    """Has a child ended with a ``with``."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def __enter__(self) -> Child:
        return self._child

    def __exit__(self, *_: object) -> None:
        self._child.end()
