"""`txmux test`: whether the answer of a port depends on the packets in which a client's first bytes arrive."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from itertools import permutations

import attrs

from txmux.classes import define, frozen
from txmux.cli._output import Output
from txmux.errors import MuxError, cause_of, how_to_install, printable
from txmux.features.test.dialogues import HAS_POST_QUANTUM, Answer, FirstBytes, Handshake
from txmux.features.test.sending import NO_ANSWER, Where, exchange_bytes, resolve
from txmux.telemetry.formatting import plural, printable_json
from txmux.transport import is_address

_AT_ONCE, _IN_ALL = 4, 200
_MOST_CUTS = 62
_WHOLE = 3  # connections without a cut, since a server may answer differently each time
_BESIDE = 2 * _WHOLE + 9  # connections for each name, besides those that are cut once
_BY_QUIC = 2 * _WHOLE + 2 * (2 + 6) + 1  # the same by UDP, where each order is sent
_SEGMENT = 1440  # bytes, on most paths
_BROWSERS, _LONG, _PIECES = 1843, 8192, 58
_APART, _SHORT_PATIENCE, _LONGEST_TIMEOUT = 1.1, 1.0, 3600  # seconds
_LONGEST_NAME = 253  # bytes, as in DNS
_DIFFERS, _UNANSWERED = 1, 3

_Call = Callable[[float], Answer]
"""Opens a connection and gives the answer, for which it waits so many seconds."""
_Cut = Sequence[tuple[str, Sequence[_Call]]]
"""What is sent in pieces, and how."""
_Plan = tuple[_Call, _Cut, _Call]
"""The whole, what is cut, and the half."""


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("address", metavar="HOST:PORT", type=_address, help="a proxy or server of any kind")
    name_help = "the name that the client asks for, by default HOST; may be repeated"
    add("--sni", metavar="NAME", action="append", type=_name, help=name_help)
    add_one, protocols = (
        parser.add_mutually_exclusive_group().add_argument,
        ["tls", *read_samples()],
    )
    sample_help = "a matcher, whose sample is sent (tls)"
    add_one("--protocol", default="tls", choices=protocols, metavar="NAME", help=sample_help)
    add_one("--udp", action="store_true", help="send the hello of QUIC over UDP")
    timeout_help = "until a server counts as silent (10)"
    add("--timeout", metavar="SECONDS", type=float, default=10.0, help=timeout_help)
    add("--json", action="store_true", help="write JSON")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    _name(host)
    if ":" in host and not text.startswith("["):
        raise argparse.ArgumentTypeError(f"{text!r}: write it as [2001:db8::1]:443")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        advice = "" if host else f"; to check a rules file: txmux check {text}"
        raise argparse.ArgumentTypeError(f"{text!r}: write it as mux.example:443{advice}")
    return host, int(port)


def _name(text: str) -> str:
    """Return what SNI has of a host, which is nothing of an address."""
    if is_address(text):
        return ""
    try:
        name = text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no name: {error}") from error
    if len(name.removesuffix(".")) > _LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"{text!r} is no name: longer than {_LONGEST_NAME} bytes")
    return name


def read_samples() -> dict[str, str]:
    found: dict[str, str] = json.loads(
        files(__package__).joinpath("samples.json").read_text("ascii")
    )
    return found


def run(arguments: argparse.Namespace) -> int:
    host, port = arguments.address
    names = [*dict.fromkeys(arguments.sni or [_name(host)])]
    most = min(_MOST_CUTS, (_IN_ALL // len(names) - _BESIDE) // 2)
    most_names = _IN_ALL // (_BY_QUIC if arguments.udp else _BESIDE + 2)
    if len(names) > most_names or not 0 < arguments.timeout <= _LONGEST_TIMEOUT:
        limits = f"more than 0 seconds, at most {_LONGEST_TIMEOUT}"
        arguments.parser.error(f"at most {most_names} names, and a timeout of {limits}")
    line: Callable[[str, str], object] = (lambda *_: None) if arguments.json else Output().line
    found: dict[str, list[_Row]] = {}
    session, about = _Asking(arguments.timeout), f"{host} port {port}"
    try:
        where, count = resolve(host, port, arguments.timeout, is_udp=arguments.udp)
        for name in names:
            about = f"{host} port {port}" + (f", asked for {name}" if name else "")
            session.patience = arguments.timeout
            found[name or host] = written = []
            if len(names) > 1:
                line(name, "bold")
            for row in _tested(session, *make_plan(arguments, where, name, most)):
                written.append(row)
                line(row.line(), "red" if row.differing else "")
    except (OSError, MuxError) as error:
        after = f", after {plural(session.opened, 'connection')}" if session.opened else ""
        print(printable(f"txmux test: {about}: {cause_of(error)}{after}"), file=sys.stderr)
        return _UNANSWERED
    reached = f"{where[1][0]} port {port}" + f", of {count} addresses" * (count > 1)
    depends = any(row.differing for rows in found.values() for row in rows)
    does, style = ("depends", "red") if depends else ("does not depend", "green")
    line(f"result: the decision {does} on packets", style)
    limits = f"at most {_AT_ONCE} at a time and {_IN_ALL} in all"
    line(f"({plural(session.opened, 'connection')} to {reached}; {limits})", "dim")
    if arguments.json:
        tests = {name: [*map(attrs.asdict, rows)] for name, rows in found.items()}
        document = {"address": reached, "connections": session.opened, "tests": tests}
        print(
            printable_json(
                {"depends_on_packets": depends, **document}, partial(json.dumps, indent=1)
            )
        )
    return _DIFFERS if depends else 0


def make_plan(arguments: argparse.Namespace, where: Where, name: str, most: int) -> _Plan:
    if arguments.udp:
        return _quic_plan(where, name)
    send = partial(exchange_bytes, where)
    make: Callable[[], FirstBytes] = partial(Handshake, name)
    if arguments.protocol != "tls":
        sample = read_samples()[arguments.protocol].replace("{name}", name or arguments.address[0])
        make = partial(FirstBytes, sample.encode("latin-1"))
    first = make().to_send()
    offsets = cut_offsets(len(first), most)
    cut: _Cut = [
        (f"cut at {plural(len(offsets), 'place')}", [partial(send, make, (at,)) for at in offsets]),
        ("one byte at a time", [partial(send, make, range(1, len(first)))]),
        *(_modern_hellos(where, name) if arguments.protocol == "tls" else ()),
    ]
    half = partial(FirstBytes, first[: len(first) // 2])
    return partial(send, make, ()), cut, partial(send, half, ())


def cut_offsets(length: int, most: int) -> list[int]:
    """Choose where to cut: at each of the first bytes, which have the fields of most protocols, then evenly."""
    begin = min(most // 4, length - 1)
    left = min(most, length - 1) - begin
    even = (begin + (length - begin) * n // (left + 1) for n in range(1, left + 1))
    return [*range(1, begin + 1), *even]


def _modern_hellos(where: Where, name: str) -> _Cut:
    def calls(size: int, cuts: Sequence[int]) -> list[_Call]:
        make = partial(Handshake, name, post_quantum=True, size=size)
        return [partial(exchange_bytes, where, make, cuts)] * HAS_POST_QUANTUM

    pieces = [_LONG * number // _PIECES for number in range(1, _PIECES)]
    return [
        ("X25519MLKEM768 (1.8 KiB)", calls(_BROWSERS, [_SEGMENT])),
        (f"… and 8 KiB: {_PIECES} segments", calls(_LONG, pieces)),
    ]


def _quic_plan(where: Where, name: str) -> _Plan:
    try:
        from txmux.features.test.quic import exchange_datagrams as send  # noqa: PLC0415 - it needs a package
    except ModuleNotFoundError as error:
        raise MuxError(f"--udp needs aioquic: {how_to_install('quic')}") from error

    def calls(count: int) -> list[_Call]:
        return [partial(send, where, name, count, one) for one in permutations(range(count))]

    cut: _Cut = [(f"in {plural(count, 'datagram')}, any order", calls(count)) for count in (2, 3)]
    return calls(1)[0], cut, partial(send, where, name, 2, (0,))


@frozen
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


@define
class _Asking:
    """Opens connections, a few at a time; `patience` is in seconds."""

    patience: float
    opened: int = 0

    def ask(self, calls: Sequence[_Call]) -> list[Answer]:
        answers = []
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for answer in threads.map(lambda call: call(self.patience), calls):
                answers.append(answer)
                self.opened += 1
                if answer.text == NO_ANSWER:
                    # A port that lets every cut client wait would be tested for minutes.
                    self.patience = min(self.patience, _SHORT_PATIENCE)
        return answers


def _tested(session: _Asking, whole: _Call, cut: _Cut, half: _Call) -> Iterator[_Row]:
    """Send all that is sent for a name; raises `MuxError` if there is nothing to compare with."""
    apart: list[_Call] = [partial(_after, number * _APART, whole) for number in range(_WHOLE)]
    wholes = session.ask(apart)
    usual, level = _most_common(wholes)
    row = _compared("whole", wholes, usual, level)
    text = usual.text + f", {row.answer}" * bool(row.differing)
    yield attrs.evolve(row, result="answered", answer=text, seconds=usual.seconds)
    differing = 0
    for sent, calls in cut:
        answers = session.ask(calls)
        # Some servers lose a client now and then, whatever it sends.
        odd = [n for n, one in enumerate(answers) if one.keys[level:] != usual.keys[level:]]
        for n, answer in zip(odd, session.ask([calls[n] for n in odd]), strict=True):
            answers[n] = answer
        row = _compared(sent, answers, usual, level)
        differing += row.differing
        if gained := len(odd) - row.differing:
            row = attrs.evolve(row, answer=f"{row.answer}, {gained} at a second try".strip(", "))
        yield row
    if differing:
        _most_common(session.ask(apart), " any more: is there a limit of clients?")
    [answer] = session.ask([half])
    yield _Row("half, then silence", f"{answer.text} after {_time(answer.seconds)}")


def _after(seconds: float, call: _Call, patience: float) -> Answer:
    """Call so much later than others that a time in an answer shows."""
    time.sleep(seconds)
    return call(patience)


def _most_common(wholes: Sequence[Answer], hint: str = "") -> tuple[Answer, int]:
    """Return the answer of which most are, and the first of the keys in which these agree."""
    answered = [one for one in wholes if one.keys]
    for level in range(max((len(one.keys) for one in answered), default=0)):
        for one in (one for one in answered if len(one.keys) > level):
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
