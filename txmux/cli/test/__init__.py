"""`txmux test`: whether the answer of a port depends on the packets in which a client's first bytes arrive."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files

import attrs

from txmux.cli._output import Output
from txmux.cli.test.dialogues import HAS_POST_QUANTUM, Answer, Handshake, Sample
from txmux.cli.test.sending import NO_ANSWER, Where, exchange, resolve
from txmux.errors import MuxError, cause_of, how_to_install, printable
from txmux.telemetry.formatting import counted

_AT_ONCE, _IN_ALL = 4, 200
_MOST_CUTS = 62
_WHOLE = 3  # connections without a cut, since a server may answer differently each time
_BESIDE = (
    2 * _WHOLE + 9
)  # connections for each name besides those that are cut once, tried twice if odd
_SEGMENT = 1440  # bytes, on most paths
_BROWSERS, _LONG, _PIECES = 1843, 8192, 58
_APART, _SHORT_PATIENCE = 1.1, 1.0  # seconds
_DIFFERS, _UNANSWERED = 1, 3

_Call = Callable[[float], Answer]
"""Opens a connection and gives the answer, for which it waits so many seconds."""
_Rows = list[tuple[str, list[_Call]]]
"""What is sent, from the whole to the half, and how."""


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("address", metavar="HOST:PORT", type=_address, help="a proxy or server of any kind")
    name_help = "the name that the client asks for, by default HOST; may be repeated"
    add("--sni", metavar="NAME", action="append", type=_name, help=name_help)
    add_one = parser.add_mutually_exclusive_group().add_argument
    protocol_help = "a matcher, whose sample is sent (tls)"
    add_one(
        "--protocol",
        default="tls",
        choices=["tls", *_samples()],
        metavar="NAME",
        help=protocol_help,
    )
    add_one("--udp", action="store_true", help="send the hello of QUIC over UDP")
    timeout_help = "until a server counts as silent (10)"
    add("--timeout", metavar="SECONDS", type=float, default=10.0, help=timeout_help)
    add("--json", action="store_true", help="write JSON")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    _name(host)
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r}: write it as mux.example:443")
    return host, int(port)


def _name(text: str) -> str:
    """Return what SNI has of a host, which is nothing of an address."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text)
        return ""
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no name: {error}") from error


def _samples() -> dict[str, str]:
    found: dict[str, str] = json.loads(files(__name__).joinpath("samples.json").read_text("ascii"))
    return found


def run(arguments: argparse.Namespace) -> int:
    host, port = arguments.address
    names = [*dict.fromkeys(arguments.sni or [_name(host)])]
    most = min(_MOST_CUTS, (_IN_ALL // len(names) - _BESIDE) // 2)
    if most < 1 or not arguments.timeout > 0:
        limit = f"at most {_IN_ALL // (_BESIDE + 2)} names"
        arguments.parser.error(f"{limit}, and a timeout of more than 0 seconds")
    output = None if arguments.json else Output()
    found: dict[str, list[_Row]] = {}
    asking, about = _Asking(arguments.timeout), f"{host} port {port}"
    try:
        where, count = resolve(host, port, arguments.timeout, is_udp=arguments.udp)
        for name in names:
            about = f"{host} port {port}" + (f", asked for {name}" if name else "")
            asking.patience = arguments.timeout
            found[name or host] = written = []
            if output and len(names) > 1:
                output.line(name, "bold")
            for row in _tested(asking, _rows_of(arguments, where, name, most)):
                written.append(row)
                if output:
                    output.line(row.line(), "red" if row.differing else "")
    except (OSError, MuxError) as error:
        after = f", after {counted(asking.opened, 'connection')}" if asking.opened else ""
        print(printable(f"txmux test: {about}: {cause_of(error)}{after}"), file=sys.stderr)
        return _UNANSWERED
    reached = f"{where[1][0]} port {port}" + f", the first of {count} that answers" * (count > 1)
    depends = any(row.differing for rows in found.values() for row in rows)
    if output is None:
        tests = {name: [*map(attrs.asdict, rows)] for name, rows in found.items()}
        document = {"address": reached, "connections": asking.opened, "tests": tests}
        print(json.dumps({"depends_on_packets": depends, **document}, indent=1))
    else:
        does, style = ("depends", "red") if depends else ("does not depend", "green")
        output.line(f"result: the decision {does} on packets", style)
        limits = f"at most {_AT_ONCE} at a time and {_IN_ALL} in all"
        output.line(f"({asking.opened} connections to {reached}; {limits})", "dim")
    return _DIFFERS if depends else 0


def _rows_of(arguments: argparse.Namespace, where: Where, name: str, most: int) -> _Rows:
    send, sample = partial(exchange, where), _samples().get(arguments.protocol)
    if arguments.udp:
        return _quic_rows(where, name)
    if sample is None:
        return _tls_rows(name, send, most)
    first = sample.replace("{name}", name or arguments.address[0]).encode("latin-1")
    return _rows(partial(Sample, first), send, most)


def _rows(
    make: Callable[[], Sample],
    send: Callable[..., Answer],
    most: int,
    others: Sequence[tuple[str, list[_Call]]] = (),
) -> _Rows:
    first = make().to_send()
    cut: list[_Call] = [partial(send, make, (place,)) for place in _places(len(first), most)]
    half = partial(Sample, first[: len(first) // 2])
    return [
        ("whole", [partial(send, make, ())] * _WHOLE),
        (f"cut at {len(cut)} places", cut),
        ("one byte at a time", [partial(send, make, range(1, len(first)))]),
        *others,
        ("half, then silence", [partial(send, half, ())]),
    ]


def _places(length: int, most: int) -> list[int]:
    """Choose where to cut: at each of the first bytes, which have the fields of most protocols, then evenly."""
    begin = min(most // 4, length - 1)
    left = min(most, length - 1) - begin
    even = (begin + (length - begin) * n // (left + 1) for n in range(1, left + 1))
    return [*range(1, begin + 1), *even]


def _tls_rows(name: str, send: Callable[..., Answer], most: int) -> _Rows:
    modern = partial(Handshake, name, post_quantum=True)
    sent: Iterable[tuple[str, int, Sequence[Sequence[int]]]] = (
        ("X25519MLKEM768 (1.8 KiB)", _BROWSERS, ((), (_SEGMENT,))),
        (
            f"… and 8 KiB: {_PIECES} segments",
            _LONG,
            ([_LONG * n // _PIECES for n in range(1, _PIECES)],),
        ),
    )
    others: _Rows = [
        (
            title,
            [partial(send, partial(modern, size=size), cuts) for cuts in ways if HAS_POST_QUANTUM],
        )
        for title, size, ways in sent
    ]
    return _rows(partial(Handshake, name), send, most, others)


def _quic_rows(where: Where, name: str) -> _Rows:
    try:
        from txmux.cli.test.quic import exchange as send  # noqa: PLC0415 - it needs a package
    except ModuleNotFoundError as error:
        raise MuxError(f"--udp needs aioquic: {how_to_install('quic')}") from error
    cut: _Rows = [
        (f"in {count} datagrams, any order",
         [partial(send, where, name, count, order) for order in itertools.permutations(range(count))])
        for count in (2, 3)
    ]  # fmt: skip
    whole, half = partial(send, where, name, 1, (0,)), partial(send, where, name, 2, (0,))
    return [("whole", [whole] * _WHOLE), *cut, ("half, then silence", [half])]


@attrs.frozen
class _Row:
    """A line of the output; `differing` counts the connections with another answer than a whole hello."""

    sent: str
    result: str
    answer: str = ""
    seconds: float | None = None
    connections: int = 1
    differing: int = 0

    def line(self) -> str:
        took = "" if self.seconds is None else f"{_time(self.seconds):<8}"
        return f"{self.sent:<27}{self.result:<11}{took}{self.answer}".rstrip()


@attrs.define
class _Asking:
    """Opens connections, a few at a time; `patience` is in seconds."""

    patience: float
    opened: int = 0

    def ask(self, calls: Sequence[_Call]) -> list[Answer]:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return [*threads.map(self._call, calls)]

    def ask_slowly(self, calls: Sequence[_Call]) -> list[Answer]:
        """Ask in turn, so long apart that a time in an answer shows."""
        answers: list[Answer] = []
        for call in calls:
            time.sleep(_APART if answers else 0)
            answers.append(self._call(call))
        return answers

    def _call(self, call: _Call) -> Answer:
        answer = call(self.patience)
        self.opened += 1
        if answer.text == NO_ANSWER:
            # A port that lets every cut client wait would be tested for minutes.
            self.patience = min(self.patience, _SHORT_PATIENCE)
        return answer


def _tested(asking: _Asking, rows: _Rows) -> Iterator[_Row]:
    """Send all that is sent for a name; raises `MuxError` if there is nothing to compare with."""
    (title, whole), *cut, (half_title, half) = rows
    wholes = asking.ask_slowly(whole)
    usual, level = _most_common(wholes)
    row = _compared(title, wholes, usual, level)
    text = usual.text + f", {row.answer}" * bool(row.differing)
    yield attrs.evolve(row, result="answered", answer=text, seconds=usual.seconds)
    differing = 0
    for sent, calls in cut:
        answers = asking.ask(calls)
        # Some servers lose a client now and then, whatever it sends.
        odd = [n for n, one in enumerate(answers) if one.keys[level:] != usual.keys[level:]]
        for n, answer in zip(odd, asking.ask([calls[n] for n in odd]), strict=True):
            answers[n] = answer
        row = _compared(sent, answers, usual, level)
        if len(odd) > row.differing:
            text = f"{row.answer}, {len(odd) - row.differing} at a second try".removeprefix(", ")
            row = attrs.evolve(row, answer=text)
        differing += row.differing
        yield row
    if differing:
        _most_common(asking.ask(whole), " any more: is there a limit of clients?")
    [answer] = asking.ask(half)
    yield _Row(half_title, f"{answer.text} after {_time(answer.seconds)}")


def _most_common(wholes: Sequence[Answer], hint: str = "") -> tuple[Answer, int]:
    """Return the answer of which most are, and the first of the keys in which these agree."""
    answered = [one for one in wholes if one.keys]
    for level in range(max((len(one.keys) for one in answered), default=0)):
        for one in answered:
            if sum(one.keys[level:] == other.keys[level:] for other in answered) > len(wholes) / 2:
                return one, level
    what = "no two answers are the same" if answered else _texts(wholes)
    raise MuxError(f"{what}, although nothing was cut{hint}")


def _compared(sent: str, answers: Sequence[Answer], whole: Answer, level: int) -> _Row:
    if not answers:
        return _Row(sent, "not sent: the package cryptography needs OpenSSL 3.5", connections=0)
    others = [answer for answer in answers if answer.keys[level:] != whole.keys[level:]]
    count, differing = len(answers), len(others)
    same = f"the same {whole.noun}" if whole.keys[level] else f"any {whole.noun}"
    text = f"else {_texts(others)}" if others else same
    if count > 1:
        return _Row(sent, f"{count - differing} of {count}", text, None, count, differing)
    result, text = ("other", _texts(others)) if others else ("answered", "")
    return _Row(sent, result, text, answers[0].seconds, count, differing)


def _texts(answers: Iterable[Answer]) -> str:
    return ", ".join(sorted({answer.text for answer in answers}))


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
