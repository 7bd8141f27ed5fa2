"""What a worker is told of rules, and of memory in which it counts: lines of JSON, with descriptors, whatever is in them.

An input is what comes over the channel. Its first byte says which memory comes along: as large as it has to be, or smaller.
All is done as in a worker, but that it keeps its user, which is given up for good: this process tries other inputs after this one.
What it is told may be answered by an error; but no descriptor stays open, and nothing ends it.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import attrs
from twisted.logger import globalLogPublisher

from campaign.fuzz.descriptors import leaving_none_open
from campaign.fuzz.files import no_files
from campaign.fuzz.messages import hear, line
from campaign.fuzz.served import RULES, TEXT, Reactor, end
from campaign.fuzz.target import Target
from txmux import files
from txmux.access.across_processes import LimitsLayout
from txmux.processes.account import Account
from txmux.processes.worker.process import WorkerProcess
from txmux.rules.reading.parser import parse
from txmux.serving.listen_addresses import listen_addresses
from txmux.telemetry.counting.process_counters import CounterLayout, keys_of
from txmux.telemetry.sharedmemory import make

_LARGE = 1 << 24
_SIZES = {b"e": 0, b"s": 1 << 12}
"""Bytes of memory; those of any other input are enough."""
_SMALL = "[listen a]\nendpoint = 127.0.0.1:1\n"
_KEYS = [place.key for listener in RULES.listeners for place in listen_addresses(listener)]


@leaving_none_open
def _check(data: bytes) -> None:
    reactor = Reactor()
    worker = WorkerProcess(1, reactor)
    with ExitStack() as here, _harmless():
        memory = make("fuzz")
        here.callback(os.close, memory)
        os.ftruncate(memory, _SIZES.get(data[:1], _LARGE))
        stream, datagrams = (
            socket.create_server(("127.0.0.1", 0)),
            socket.socket(type=socket.SOCK_DGRAM),
        )
        sockets = [one.fileno() for one in map(here.enter_context, (stream, datagrams))]
        give = functools.partial(_given, {"prepare": sockets}, [memory, *sockets])
        hear(worker.channel, data[1:], give)
        _end(worker, reactor)


def _given(
    known: Mapping[object, Sequence[int]], others: Sequence[int], kind: object, count: int
) -> list[int]:
    """Give descriptors for a message: those that it needs, and if it says that there are more, the same again."""
    found = known.get(kind, others) if isinstance(kind, str) else others
    return [os.dup(found[number % len(found)]) for number in range(count)]


def _end(worker: WorkerProcess, reactor: Reactor) -> None:
    if worker._serving is not None:
        worker._abandon(worker._serving)
    end(worker._serving, reactor)
    if hasattr(worker, "_limits"):
        worker._limits.close()


@contextmanager
def _harmless() -> Iterator[None]:
    with (
        mock.patch.object(Account, "become", return_value=False),
        # What is logged is kept, with all that it is about.
        mock.patch.object(globalLogPublisher, "_observers", []),
        no_files(),
    ):
        try:
            yield
        finally:
            files.use_helper(None)


def _seeds() -> list[bytes]:
    layout = LimitsLayout(4)
    layout.extend(RULES)
    counted = CounterLayout()
    counted.extend(keys_of(RULES))
    told: dict[str, Any] = {
        "ask": 1,
        "rules": {"texts": {"x": TEXT}},
        "limits": attrs.asdict(layout),
        "column": 1,
        "sockets": _KEYS,
    }
    start = line("start", descriptors=1 + len(_KEYS), **told)
    small = {**told, "rules": {"texts": {"x": _SMALL}}, "limits": {"columns": 4}}
    keys = [place.key for place in listen_addresses(parse(_SMALL, "x").listeners[0])]
    counting = {"places": {"process": 0}, "cells": 20}
    prepare = line("prepare", descriptors=2, rules_changed=True, version=2, **told)
    return [
        b"x" + line("count_in", ask=2, descriptors=2, **attrs.asdict(counted)) + start,
        b"x" + start + prepare + line("commit", ask=3),
        b"x" + line("start", descriptors=2, **{**small, "sockets": keys}),
        b"x" + line("start", descriptors=3, opener=True, **{**small, "sockets": keys}),
        b"x"
        + line("count_in", ask=2, descriptors=2, **counting)
        + line("count_more", places={"process": -1}, cells=10**9, gone=["process"]),
        *(size + line("count_in", ask=2, descriptors=2, **counting) for size in (b"e", b"s")),
        *(
            size + line("start", descriptors=2, **{**small, "sockets": keys})
            for size in (b"e", b"s")
        ),
    ]


_WORDS = (
    b'{"kind":"', b'"ask":1,', b'"descriptors":1,', b"null", b"1e999", b"-1", b"[]", b"{}",
    b'"rules":{"texts":{', b'"included":{"', b'"variables":{"', b'"limits":{', b'"rows":{"',
    b'"tables":{"', b'"size":', b'"columns":', b"524288", b"4611686018427387904", b'"web"',
    b'"opener":true,', b'"state":{', b"user = nobody\\n", b"${X}", b"include = y\\n",
    b"access_log = x\\n", b"deny = @x\\n", b"terminate_tls = x\\n",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=2500)
