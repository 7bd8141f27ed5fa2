"""The rounds: in each, one service has its rules, and so many connections come to it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

import attrs
from typing_extensions import override

from tests.campaign.bytes.again import ENTRIES
from tests.campaign.bytes.places import NAME, OUTSIDE, WAYS
from tests.campaign.bytes.plans import Mix
from tests.interop.children import eventually
from tests.processes.running import is_gone, workers_of
from tests.processes.upgrading import Upgrading

if TYPE_CHECKING:
    import random

    from tests.campaign.bytes.clients import Entry
    from tests.campaign.bytes.places import Places

RELOAD, UPGRADE, WORKERS, SERVERS = "reloads", "upgrades", "other numbers of workers", "servers"
KILL = "killed workers"

_PLAIN_WAYS = "KKKKKKVWPPSLRQ"
_MOST_WAYS = "KKKKVVWWPPSLTURQ"
_LISTENERS = """
[listen plain]
endpoint = 127.0.0.1:0
backlog = 4096
detect_timeout = 3m
{strict}

[listen told]
endpoint = 127.0.0.1:0
backlog = 4096
detect_timeout = 3m
proxy_timeout = 3m
accept_proxy_from = 127.0.0.0/8
{strict}

[listen unix]
endpoint = unix:{entry}
backlog = 4096
detect_timeout = 3m
proxy_timeout = 3m
accept_proxy_from = unix

[listen few]
endpoint = 127.0.0.1:0
backlog = 4096
detect_timeout = 3m
max_connections_per_source = 1

[listen rated]
endpoint = 127.0.0.1:0
backlog = 4096
detect_timeout = 3m
connection_rate_per_source = 1/h

[listen race]
endpoint = 127.0.0.1:0
backlog = 4096
detect_timeout = 3m
silent = F
race = yes

[listen hush]
endpoint = 127.0.0.1:0
backlog = 4096
detect_timeout = 3m
silent = F after=100ms
race = yes

[listen first]
endpoint = 127.0.0.1:0
backlog = 4096
first = server
default = F
"""
_TLS = f"""
[route through]
match = tls sni=through.{NAME}
backend = X

[route outside]
match = tls sni={OUTSIDE}
terminate_tls = {{folder}}/server.pem

[route inside]
under = outside
match = tls sni={NAME}
terminate_tls = {{folder}}/server.pem

[route ended]
match = tls sni={NAME}
terminate_tls = {{folder}}/server.pem
"""
_ROUTE = """
[route {letter}]
under = plain, told, unix, few, rated, race, ended, inside
match = {match}
backend = {letter}
"""
_GIVEN = """
[route H]
under = plain, told
match = payload text=H
backend = handover:{path}
"""
_RACED = """
[route F]
under = race, hush
match = payload text=F
backend = F
"""
_BACKEND = """
[backend {letter}]
{servers}
connect_timeout = 3m
half_close_timeout = 5m
{more}
"""


@attrs.frozen
class Round:
    """What is tried in one round.

    Attributes:
        number: Which one it is.
        relay: As in the rules.
        workers: As in the rules, at first.
        changes: What happens meanwhile.
        mix: Of what its connections are.
        strict: As `tls_strict` in the rules.
        together: How many connections each process of clients has at a time.
    """

    number: int
    relay: str
    workers: int
    changes: tuple[str, ...]
    mix: Mix
    strict: bool
    together: int

    def lines(self) -> str:
        """Give what a person wants to know of it."""
        more = ", ".join(self.changes) or "nothing"
        return f"relay = {self.relay}, workers = {self.workers}, meanwhile {more}"


def choose(number: int, by: random.Random) -> Round:
    """Choose what is tried in a round."""
    is_secure = by.random() < 0.3
    entries = ["plain"] * 8 + ["first", "v1", "v2", "unix-v1", "unix-v2", "race", "hush", *ENTRIES]
    if is_secure:
        entries += ["tls", "tls", "tls-v2", "tls-nested", "through"]
    strict = by.random() < 0.5
    changes = [change for change in (RELOAD, UPGRADE, WORKERS, SERVERS) if by.random() < 0.4]
    workers = by.choice((1, 1, 2, 3))
    if by.random() < 0.2:  # each connection that is cut has to be known, so none may move
        changes = [KILL, *(change for change in changes if change in {RELOAD, SERVERS})]
        workers = by.choice((2, 3))
        entries = [entry for entry in entries if entry not in ENTRIES]
    moves = not {UPGRADE, WORKERS, KILL}.isdisjoint(changes)
    ways = _MOST_WAYS if is_secure else _PLAIN_WAYS
    relay = by.choice(("kernel", "kernel", "portable"))
    if relay == "kernel" and by.random() < 0.5:
        ways += "HH"
    return Round(
        number,
        relay,
        workers,
        tuple(changes),
        Mix(entries, ways, lasting=0.05 if moves else 0.003, strict=strict),
        strict,
        by.choice((16, 64, 200)),
    )


def rules(its: Round, places: Places, number: int = 0) -> str:
    """Write the rules, all sections but ``[txmux]``.

    Args:
        its: The round.
        places: The servers.
        number: How often they have changed.
    """
    strict = f"tls_strict = {'yes' if its.strict else 'no'}"
    text = [_LISTENERS.format(strict=strict, entry=places.entry)]
    text.append(_TLS.format(folder=places.folder))
    for way in WAYS:
        letter = way.letter
        if letter == "H":
            if letter in its.mix.ways:
                text.append(_GIVEN.format(path=places.handover))
            continue
        if letter not in "FX":
            # some are known by their first byte, others need the whole header
            regex = rf"regex pattern=^{letter}[0-9a-f]{{8}}![0-9a-f]{{8}}\n"
            match = regex if letter in "VWSU" else f"payload text={letter}"
            text.append(_ROUTE.format(letter=letter, match=match))
        more = way.more
        if way.proxy:
            more += f"\nproxy_protocol = {way.proxy}"
        if way.tls and letter != "X":
            more += f"\ntls = yes\ntls_name = {NAME}\ntls_ca = {places.folder}/authority.pem"
        servers = "server = " + "\n    ".join(places.servers(letter))
        text.append(_BACKEND.format(letter=letter, servers=servers, more=more))
    text.append(_RACED)
    text.append(f"[route spare{number}]\nmatch = minecraft\nbackend = close\n")
    return "".join(text)


class Service(Upgrading):
    """The service of one round.

    Args:
        its: The round.
        places: The servers.
        seconds: How long it may run.
    """

    def __init__(self, its: Round, places: Places, seconds: float) -> None:
        self._its, self._places = its, places
        self._changed = 0
        self.changes: dict[str, int] = {}
        self.kills: list[float] = []
        super().__init__(places.folder, self.text(0), self._settings(its.workers))
        self.child.allow(seconds)

    def text(self, number: int) -> str:
        """Write its rules, all sections but ``[txmux]``, which differ with each number."""
        return rules(self._its, self._places, number)

    def _settings(self, workers: int) -> str:
        return f"relay = {self._its.relay}\nworkers = {workers}\ndrain_timeout = 10m\nadmin = off\n"

    def entries(self) -> dict[str, Entry]:
        """Give where clients come in, by what they do there."""
        at: dict[str, Entry] = {name: ("127.0.0.1", port) for name, port in self.ports.items()}
        plain = dict.fromkeys(("plain", "tls", "tls-nested", "through"), at["plain"])
        told = dict.fromkeys(("v1", "v2", "tls-v2"), at["told"])
        unix = dict.fromkeys(("unix-v1", "unix-v2"), self._places.entry)
        return {**at, **plain, **told, **unix}

    def can_change(self) -> bool:
        """Tell whether something is to happen meanwhile."""
        return bool(set(self._its.changes) - {SERVERS})

    def remove(self) -> None:
        """End it, if it has not ended, and remove its files."""
        self.kill()
        shutil.rmtree(self.log.parent)

    def change(self, by: random.Random) -> None:
        """Do one of the things that happen meanwhile, and wait until it is done."""
        kinds = [kind for kind in self._its.changes if kind != SERVERS]
        kind = by.choice(kinds)
        if kind == KILL:
            if not self._kill(by):
                return
        elif kind == UPGRADE:
            self.ask()
            self.switched()
        else:
            workers = by.choice((1, 2, 3)) if kind == WORKERS else self._its.workers
            self._reload(workers)
        self.changes[kind] = self.changes.get(kind, 0) + 1

    def _kill(self, by: random.Random) -> bool:
        """Kill a worker, unless it is the only one, and tell whether that was done."""
        alive = [pid for pid in workers_of(self.pid) if not is_gone(pid)]
        if len(alive) < 2:
            return False
        victim = by.choice(alive)
        self.kills.append(time.monotonic())
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: is_gone(victim), "the worker is gone")
        return True

    def _reload(self, workers: int) -> None:
        self._changed += 1
        begin, _, _ = self.file.read_text().partition("relay = ")
        text = self.text(self._changed)
        self.file.write_text(f"{begin}{self._settings(workers)}\n{text}")
        done = self._reloads()
        os.kill(self.pid, signal.SIGHUP)
        eventually(lambda: self._reloads() > done, "the rules are reloaded")

    def _reloads(self) -> int:
        return self.child.output.count("rules reloaded: ")

    def whole_log(self, count: int, seconds: float) -> list[dict[str, object]]:
        """Wait for so many lines of the access log, and a moment for more of them, and give all."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.log.read_bytes().count(b"\n") < count:
            time.sleep(0.1)
        return self.lines()


_DATAGRAMS = """
[listen datagrams]
endpoint = udp:127.0.0.1:0
default = D

[route spare{number}]
match = payload text=spare{number}
backend = D

[backend D]
server = udp:127.0.0.1:{port}
idle_timeout = 4s
unanswered_timeout = 4s
"""


class DatagramService(Service):
    """The service of a round of datagrams.

    Args:
        its: The round.
        places: Of which only the folder is used.
        seconds: How long it may run.
        port: That of the server.
    """

    def __init__(self, its: Round, places: Places, seconds: float, port: int) -> None:
        self._port = port
        super().__init__(its, places, seconds)

    @override
    def text(self, number: int) -> str:
        return _DATAGRAMS.format(number=number, port=self._port)
