"""The rounds: in each, one service has its rules, and so many connections come to it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import attrs
from typing_extensions import override

from campaign.bytes.again import ENTRIES
from campaign.bytes.changing import Changing
from campaign.bytes.clients import Entry
from campaign.bytes.places import DOMAIN, NAME, OUTSIDE, WAYS, Places
from campaign.bytes.plans import Mix
from campaign.bytes.troubles import Troubles
from tests.interop.children import eventually
from tests.support.proc import is_gone, workers_of
from tests.support.services import Service

RELOAD, UPGRADE, WORKERS, SERVERS = "reloads", "upgrades", "other numbers of workers", "servers"
TROUBLE, HANG = "killed and halted processes", "hung processes"

_EVERY = {RELOAD: 0.25, UPGRADE: 5.0, WORKERS: 2.5, TROUBLE: 2.5, HANG: 5.0}
"""Seconds from one change to the next."""

_PLAIN_WAYS = "KKKKKKVWPPOSLRQ"
_MOST_WAYS = "KKKKVVWWPPOSLTURQ"
_LISTENERS = """
[listen plain]
endpoint = 127.0.0.1:0
detect_timeout = 3m
{strict}

[listen told]
endpoint = 127.0.0.1:0
detect_timeout = 3m
proxy_timeout = 3m
accept_proxy_from = 127.0.0.0/8
{strict}

[listen unix]
endpoint = unix:{entry}
detect_timeout = 3m
proxy_timeout = 3m
accept_proxy_from = unix

[listen few]
endpoint = 127.0.0.1:0
detect_timeout = 3m
max_connections_per_source = 1

[listen rated]
endpoint = 127.0.0.1:0
detect_timeout = 3m
connection_rate_per_source = 1/h

[listen hush]
endpoint = 127.0.0.1:0
detect_timeout = 3m
silent = F after=100ms

[listen first]
endpoint = 127.0.0.1:0
first = server
default = F
"""
_TLS = f"""
[route through]
under = *
match = tls sni=through.{NAME}
backend = X

[route named]
under = *
match = tls sni=*.{DOMAIN}
backend = N

[route outside]
under = *
match = tls sni={OUTSIDE}
terminate_tls = {{folder}}/server.pem

[route inside]
under = outside
match = tls sni={NAME}
terminate_tls = {{folder}}/server.pem

[route ended]
under = *
match = tls sni={NAME}
terminate_tls = {{folder}}/server.pem
"""
_ROUTE = """
[route {letter}]
under = plain, told, unix, few, rated, ended, inside
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
under = hush
match = payload text=F
backend = F
"""
_BACKEND = """
[backend {letter}]
{servers}
connect_timeout = 3m
{more}
"""


@attrs.frozen
class Round:
    """What is tried in one round."""

    number: int
    relay: str
    workers: int
    changes: tuple[str, ...]
    mix: Mix
    strict: bool
    user: str
    together: int  # connections of each process of clients at a time

    def lines(self) -> str:
        more = ", ".join(self.changes) or "nothing"
        user = f", user = {self.user}" * bool(self.user)
        return f"relay = {self.relay}, workers = {self.workers}{user}, meanwhile {more}"


def choose(number: int, by: random.Random) -> Round:
    is_secure = by.random() < 0.3
    entries = ["plain"] * 8 + ["first", "v1", "v2", "unix-v1", "unix-v2", "hush", *ENTRIES]
    if is_secure:
        entries += ["tls", "tls", "tls-v2", "tls-nested", "through", "named"]
    strict = by.random() < 0.5
    changes = [change for change in (RELOAD, UPGRADE, WORKERS, SERVERS) if by.random() < 0.4]
    workers = by.choice((1, 1, 2, 3))
    if by.random() < 0.4:
        changes = [TROUBLE, HANG, *changes]
        # what a killed worker has counted is counted no more
        entries = [entry for entry in entries if entry not in ENTRIES]
    user = "nobody" if by.random() < 0.4 and not os.geteuid() else ""
    moves = not {UPGRADE, WORKERS, TROUBLE}.isdisjoint(changes)
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
        user,
        by.choice((16, 64, 200)),
    )


def rules(its: Round, places: Places, number: int = 0) -> str:
    """Write the rules, all sections but ``[txmux]``."""
    strict = f"tls_strict = {'yes' if its.strict else 'no'}"
    text = [_LISTENERS.format(strict=strict, entry=places.entry)]
    text.append(_TLS.format(folder=places.folder))
    for way in WAYS:
        letter = way.letter
        if letter == "H":
            if letter in its.mix.ways:
                text.append(_GIVEN.format(path=places.handover))
            continue
        if letter not in "FXN":
            # some are known by their first byte, others need the whole header
            regex = rf"regex pattern=^{letter}[0-9a-f]{{8}}![0-9a-f]{{8}}\n"
            match = regex if letter in "VWSU" else f"payload text={letter}"
            text.append(_ROUTE.format(letter=letter, match=match))
        more = way.more
        if way.proxy:
            more += f"\nproxy_protocol = {way.proxy}"
        if letter == "N":
            place = "{}:{}".format(*places.names.getsockname())
            more += f"allow_names = *.{DOMAIN}\nallow_networks = 127.0.0.1\nresolvers = {place}"
        if way.tls and letter not in "XN":
            more += f"\ntls = yes\ntls_name = {NAME}\ntls_ca = {places.folder}/authority.pem"
        servers = "server = " + "\n    ".join(places.servers(letter))
        text.append(_BACKEND.format(letter=letter, servers=servers, more=more))
    text.append(_RACED)
    text.append(f"[route spare{number}]\nunder = *\nmatch = minecraft\nbackend = close\n")
    return "".join(text)


class RoundService(Service):
    """The service of one round."""

    def __init__(self, its: Round, places: Places) -> None:
        self._its, self._places = its, places
        self._workers = its.workers
        self._changed = 0
        self._changes: dict[str, int] = {}
        self._reloading = threading.Lock()
        super().__init__(places.folder, self.text(0), self._settings())
        self.troubles = Troubles(self.pid, self.running)

    def text(self, number: int) -> str:
        """Write its rules, all sections but ``[txmux]``, which differ with each number."""
        return rules(self._its, self._places, number)

    def _settings(self) -> str:
        user = f"user = {self._its.user}\n" * bool(self._its.user)
        relay, workers = self._its.relay, self._workers
        return f"{user}relay = {relay}\nworkers = {workers}\ndrain_timeout = 10m\nadmin = off\n"

    def entries(self) -> dict[str, Entry]:
        at: dict[str, Entry] = {name: ("127.0.0.1", port) for name, port in self.ports.items()}
        plain = dict.fromkeys(("plain", "tls", "tls-nested", "through", "named"), at["plain"])
        told = dict.fromkeys(("v1", "v2", "tls-v2"), at["told"])
        return {**at, **plain, **told, **dict.fromkeys(("unix-v1", "unix-v2"), self._places.entry)}

    def running(self) -> list[int]:
        return [*(pid for pid in self._pids if pid != self.pid and not is_gone(pid)), self.pid]

    def remove(self) -> None:
        """End it, if it has not ended, and remove its files."""
        self.kill_all()
        shutil.rmtree(self.log.parent)

    # What happens meanwhile.

    def changing(self, by: random.Random) -> list[Changing]:
        does: dict[str, Callable[[random.Random], None]] = {
            RELOAD: self._reload,
            WORKERS: self._resize,
            UPGRADE: self._upgrade,
            TROUBLE: self.troubles.befall,
            HANG: self.troubles.hang,
        }
        kinds = [kind for kind in self._its.changes if kind in does]
        return [
            Changing(partial(does[kind], random.Random(by.random())), _EVERY[kind])
            for kind in kinds
        ]

    def changes(self) -> dict[str, int]:
        done = {"reloads": self.child.output.count("rules reloaded: ")}
        done["upgrades"] = self.child.output.count("] upgraded: ")
        return {**done, **self._changes, **self.troubles.counts}

    def _reload(self, _: object = None) -> None:
        with self._reloading:
            self._changed += 1
            begin, _, _ = self.file.read_text().partition("[listen ")
            begin = re.sub(r"(?m)^(workers) = .*", rf"\1 = {self._workers}", begin)
            new = self.file.with_name("new")
            new.write_text(begin + self.text(self._changed).lstrip())
            new.replace(self.file)
            with suppress(ProcessLookupError):  # the file is about to name the old process again
                self.signal(signal.SIGHUP)

    def _resize(self, by: random.Random) -> None:
        self._workers = by.choice((1, 2, 3))
        self._reload(by)
        self._changes[WORKERS] = self._changes.get(WORKERS, 0) + 1

    def _upgrade(self, by: random.Random | None) -> None:
        """Have a new process take over, if nothing befalls that one, as it may with a source of chance."""
        over = self._upgrades()
        with suppress(ProcessLookupError):  # as above
            old = self.signal(signal.SIGUSR2)
            if by is not None and TROUBLE in self._its.changes and by.random() < 0.5:
                self.troubles.strike_successor(old, lambda: self._upgrades() > over, by)
            eventually(lambda: self._upgrades() > over, "the upgrade is over")
        eventually(lambda: not is_gone(self.named()), "the PID file names a process that runs")
        self.follow()

    def _upgrades(self) -> int:
        output = self.child.output
        return output.count("] upgraded: ") + output.count(
            "upgrade failed, the old process keeps serving"
        )

    def recover(self) -> None:
        """Check that it is as before when the trouble is over, and that nothing was refused if there was none."""
        if TROUBLE not in self._its.changes:
            for refused in "reload failed", "upgrade failed":
                if refused in self.child.output:
                    _, _, what = self.child.output.partition(refused)
                    raise AssertionError(f"{refused}{what[:500]}")
        elif self.troubles.can_recover:
            eventually(self._can_reload, "the rules are reloaded")
            eventually(self._can_upgrade, "an upgrade is done")
            eventually(lambda: len(workers_of(self.pid)) == self._workers, "all workers are there")

    def _can_reload(self) -> bool:
        refusals = self.child.output.count("reload failed")
        self._reload()
        done = re.compile(rf"rules reloaded: .*\bspare{self._changed}\b")
        eventually(
            lambda: (
                done.search(self.child.output) is not None
                or self.child.output.count("reload failed") > refusals
            ),
            "the rules are reloaded, or not",
        )
        return done.search(self.child.output) is not None

    def _can_upgrade(self) -> bool:
        old = self.pid
        self._upgrade(None)
        return self.pid != old

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
under = *
match = payload text=spare{number}
backend = D

[backend D]
server = udp:datagrams.{domain}:{port}
resolvers = {names}
idle_timeout = 4s
unanswered_timeout = 4s
"""


class DatagramService(RoundService):
    """The service of a round of datagrams."""

    def __init__(self, its: Round, places: Places, port: int) -> None:
        self._port = port
        super().__init__(its, places)

    @override
    def text(self, number: int) -> str:
        names = "{}:{}".format(*self._places.names.getsockname())
        return _DATAGRAMS.format(number=number, port=self._port, domain=DOMAIN, names=names)
