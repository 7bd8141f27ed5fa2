"""`txmux test`: whether the answer of a port depends on the packets in which a client's first bytes arrive."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files

import attrs

from txmux.cli._output import Output
from txmux.cli.test.dialogues import HAS_POST_QUANTUM, Handshake, Sample, server_name
from txmux.cli.test.sending import Answer, Where, exchange, resolve
from txmux.errors import MuxError, cause_of, printable
from txmux.telemetry.formatting import counted

_AT_ONCE, _IN_ALL = 4, 200
_MOST_CUTS = 62
_WHOLE = 3  # connections without a cut, since a server may answer differently each time
_BESIDE = 2 * _WHOLE + 6  # connections for each name besides those that are cut once
_SEGMENT = 1440  # bytes, on most paths
_BROWSER_HELLO, _LONG_HELLO, _LONG_PIECES = 1843, 8192, 58
_SHORT_PATIENCE = 1.0  # seconds
_DIFFERS, _UNANSWERED = 1, 3


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "address", metavar="HOST:PORT", type=_address, help="a proxy or server of any kind"
    )
    parser.add_argument(
        "--sni",
        metavar="NAME",
        action="append",
        type=_name,
        help="the name that the client asks for, by default HOST; may be repeated",
    )
    speaks = parser.add_mutually_exclusive_group()
    speaks.add_argument(
        "--protocol",
        metavar="NAME",
        default="tls",
        choices=["tls", *_samples()],
        help="a matcher, whose sample is sent (tls)",
    )
    speaks.add_argument("--udp", action="store_true", help="send the hello of QUIC over UDP")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="until a server counts as silent (10)",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r}: write it as mux.example:443")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _name(text: str) -> str:
    try:
        return server_name(text)
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no name: {error}") from error


def _samples() -> dict[str, str]:
    found: dict[str, str] = json.loads(files(__name__).joinpath("samples.json").read_text("ascii"))
    return found


def run(arguments: argparse.Namespace) -> int:
    host, port = arguments.address
    names = [*dict.fromkeys(arguments.sni or [_name(host)])]
    most = _IN_ALL // len(names) - _BESIDE
    if most < 1 or not arguments.timeout > 0:
        at_most = _IN_ALL // (_BESIDE + 1)
        arguments.parser.error(f"at most {at_most} names, and a timeout of more than 0 seconds")
    sample = _samples().get(arguments.protocol, "")
    test = _Test(arguments.timeout, None if arguments.json else Output())
    about = ""
    try:
        where, count = resolve(host, port, arguments.timeout, is_udp=arguments.udp)
        send = partial(exchange, where)
        for name in names:
            about = f", asked for {name}" if name else ""
            if arguments.udp:
                plan = _quic_plan(where, name)
            elif sample:
                first = sample.replace("{name}", name or host).encode("latin-1")
                plan = _plan(partial(Sample, first), send, most)
            else:
                plan = _tls_plan(name, send, most)
            test.run(name or host, plan, has_several=len(names) > 1)
    except (OSError, MuxError) as error:
        after = f", after {counted(test.opened, 'connection')}" if test.opened else ""
        text = f"txmux test: {host} port {port}{about}: {cause_of(error)}{after}"
        print(printable(text), file=sys.stderr)
        return _UNANSWERED
    first_of = f", the first of {count} addresses that answers" if count > 1 else ""
    return test.report(f"{where[1][0]} port {port}{first_of}")


_Call = Callable[[float], Answer]
"""Opens a connection and gives the answer, for which it waits so many seconds."""


@attrs.frozen
class _Plan:
    """What is sent for a name: whole, cut in these ways, and half."""

    whole: _Call
    cut: Sequence[tuple[str, Sequence[_Call]]]
    half: _Call


@attrs.frozen
class _Row:
    """A line of the output; `differing` counts the connections with another answer than a whole hello."""

    sent: str
    result: str
    answer: str = ""
    seconds: float | None = None
    connections: int = 1
    differing: int = 0


@attrs.define
class _Test:
    """Runs plans, and writes what comes of them.

    Attributes:
        opened: Connections so far.
    """

    _timeout: float
    _output: Output | None
    opened: int = 0
    _patience: float = 0
    _rows: dict[str, list[_Row]] = attrs.field(factory=dict)

    def run(self, name: str, plan: _Plan, *, has_several: bool) -> None:
        """Raise `MuxError` if there is nothing to compare with."""
        self._rows[name] = []
        self._patience = self._timeout
        if has_several and self._output:
            self._output.line(name, "bold")
        wholes = self._ask([plan.whole] * _WHOLE)
        level = _agreed(wholes)
        self._add(_Row("whole", "answered", _texts(wholes), wholes[0].seconds, _WHOLE))
        for sent, calls in plan.cut:
            self._add(_compared(sent, self._ask(calls), wholes[0], level))
        if any(row.differing for row in [*self._rows.values()][-1]):
            again = self._ask([plan.whole] * _WHOLE)
            if any(one.keys[level:] != wholes[0].keys[level:] for one in again):
                raise MuxError(f"now {_texts(again)}, although whole: is there a limit of clients?")
        [half] = self._ask([plan.half])
        self._add(_Row("half, then silence", f"{half.text} after {_time(half.seconds)}"))

    def _ask(self, calls: Sequence[_Call]) -> list[Answer]:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return [*threads.map(self._call, calls)]

    def _call(self, call: _Call) -> Answer:
        answer = call(self._patience)
        self.opened += 1
        if not answer.keys and answer.seconds >= self._patience:
            # A port that lets every cut client wait would be tested for minutes.
            self._patience = min(self._patience, _SHORT_PATIENCE)
        return answer

    def _add(self, row: _Row) -> None:
        [*self._rows.values()][-1].append(row)
        if self._output:
            time = "" if row.seconds is None else f"{_time(row.seconds):<8}"
            line = f"{row.sent:<27}{row.result:<11}{time}{row.answer}".rstrip()
            self._output.line(line, "red" if row.differing else "")

    def report(self, reached: str) -> int:
        """Return the exit code."""
        differing = sum(row.differing for rows in self._rows.values() for row in rows)
        if self._output is None:
            tests = {name: [*map(attrs.asdict, rows)] for name, rows in self._rows.items()}
            found = {"depends_on_packets": bool(differing), "address": reached}
            print(json.dumps({**found, "connections": self.opened, "tests": tests}, indent=1))
            return _DIFFERS if differing else 0
        if differing:
            self._output.line(f"result: the decision depends on packets, {differing} times", "red")
        else:
            self._output.line("result: the decision does not depend on packets", "green")
        limits = f"at most {_AT_ONCE} at a time and {_IN_ALL} in all"
        self._output.line(f"({self.opened} connections to {reached}; {limits})", "dim")
        return _DIFFERS if differing else 0


def _agreed(wholes: Sequence[Answer]) -> int:
    """Return the first of the keys in which these answers agree; raises `MuxError`."""
    for whole in wholes:
        if not whole.keys:
            raise MuxError(f"{whole.text}, although nothing was cut")
    levels = range(len(wholes[0].keys))
    return next(n for n in levels if len({whole.keys[n] for whole in wholes}) == 1)


def _compared(sent: str, answers: Sequence[Answer], whole: Answer, level: int) -> _Row:
    if not answers:
        return _Row(sent, "not sent: the package cryptography needs OpenSSL 3.5", connections=0)
    others = [answer for answer in answers if answer.keys[level:] != whole.keys[level:]]
    texts = ", ".join(sorted({answer.text for answer in others}))
    if len(answers) == 1:
        [one] = answers
        return _Row(sent, "other" if others else "answered", texts, one.seconds, 1, len(others))
    same = f"the same {whole.noun}" if level < len(whole.keys) - 1 else f"a {whole.noun}"
    result = f"{len(answers) - len(others)} of {len(answers)}"
    return _Row(sent, result, f"else {texts}" if others else same, None, len(answers), len(others))


def _texts(answers: Sequence[Answer]) -> str:
    return ", ".join(sorted({answer.text for answer in answers}))


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _tls_plan(name: str, send: Callable[..., Answer], most: int) -> _Plan:
    usual = _plan(partial(Handshake, name), send, most)
    modern = partial(Handshake, name, post_quantum=True)
    sent = (
        ("X25519MLKEM768 (1.8 KiB)", partial(modern, size=_BROWSER_HELLO), [(), (_SEGMENT,)]),
        (f"… and 8 KiB: {_LONG_PIECES} segments", partial(modern, size=_LONG_HELLO),
         [[_LONG_HELLO * n // _LONG_PIECES for n in range(1, _LONG_PIECES)]]),
    )  # fmt: skip
    rows = [
        (title, [partial(send, make, cuts) for cuts in ways if HAS_POST_QUANTUM])
        for title, make, ways in sent
    ]
    return attrs.evolve(usual, cut=[*usual.cut, *rows])


def _plan(make: Callable[[], Sample], send: Callable[..., Answer], most: int) -> _Plan:
    first = make().to_send()
    cut = [partial(send, make, (place,)) for place in _places(len(first), min(most, _MOST_CUTS))]
    each = partial(send, make, range(1, len(first)))
    rows = [(f"cut at {len(cut)} places", cut), ("one byte at a time", [each])]
    return _Plan(
        partial(send, make, ()), rows, partial(send, partial(Sample, first[: len(first) // 2]), ())
    )


def _places(length: int, most: int) -> Iterator[int]:
    """Choose where to cut: at each of the first bytes, which have the fields of most protocols, then evenly."""
    if length <= most:
        return iter(range(1, length))
    begin = most // 4
    left = most - begin
    even = (begin + (length - begin) * n // (left + 1) for n in range(1, left + 1))
    return itertools.chain(range(1, begin + 1), even)


def _quic_plan(where: Where, name: str) -> _Plan:
    from txmux.cli.test.quic import exchange  # noqa: PLC0415 - it needs a package

    rows = [
        (f"in {count} datagrams, any order",
         [partial(exchange, where, name, count, o) for o in itertools.permutations(range(count))])
        for count in (2, 3)
    ]  # fmt: skip
    return _Plan(
        partial(exchange, where, name, 1, (0,)), rows, partial(exchange, where, name, 2, (0,))
    )
