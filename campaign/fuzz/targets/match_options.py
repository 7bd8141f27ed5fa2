"""Values of the options of matchers: each is taken, or refused with an `OptionError` that names an option."""

from __future__ import annotations

from campaign.fuzz.target import Target, see
from txmux.detection.registry import datagram_predicate, installed_matchers, transports_of
from txmux.errors import OptionError
from txmux.interfaces import Datagrams, Peeked, Transport, Verdict

_NAMES = {
    f"{matcher.name} {option.name}": (matcher, option)
    for matcher in installed_matchers().values()
    for option in matcher.options
}


def _check(data: bytes) -> None:
    name, _, text = data.decode("utf-8", "surrogateescape").partition("=")
    if name not in _NAMES:
        return
    matcher, option = _NAMES[name]
    value, *others = text.split("\n")
    options = {option.name: value}
    for other in others:
        key, _, value = other.partition("=")
        if key in {known.name for known in matcher.options}:
            options[key] = value
    try:
        predicate = matcher.predicate(options)
    except OptionError as error:
        see(error.option in {None, *(known.name for known in matcher.options)})
        see("\n" not in str(error))
        return
    assert predicate.longest >= 1
    if Transport.TCP in transports_of(matcher):
        assert isinstance(predicate(Peeked(b"\x16\3\1")), Verdict)
    if Transport.UDP in transports_of(matcher):
        over_udp = datagram_predicate(matcher, options, predicate)
        assert over_udp is not None
        assert isinstance(over_udp(Datagrams((b"\x16\3\1",))), Verdict)


def _seeds() -> list[bytes]:
    return [f"{name}={option.example}".encode() for name, (_, option) in _NAMES.items()]


TARGET = Target(
    _check,
    _seeds,
    words=(*(f"{name}=".encode() for name in _NAMES), b"*.", b"~", b"\\x", b"!", b",", b"KiB"),
    longest=200,
)
