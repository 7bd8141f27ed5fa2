import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import all_samples, for_streams
from tests.rules.fakes import MATCHERS
from txmux.detection.registry import installed_matchers
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Peeked, Verdict
from txmux.rules.lint.coverage import HOSTS, CoverageIndex, read_line
from txmux.rules.model import Alternative
from txmux.rules.reading.matching import read_alternative

_NO_BARE_LINE = frozenset({"payload", "regex", "silent"})
_FEW_VALUES = frozenset({"method", "version"})
_NO_PATTERNS = frozenset({("sunrpc", "program")})
_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./-]*")

INSTALLED = installed_matchers()


def covers(wide: str, narrow: str, matchers: Mapping[str, IProtocolMatcher] = INSTALLED) -> bool:
    index: CoverageIndex[str] = CoverageIndex()
    index.add(read_line(read_alternative(wide, matchers)), wide)
    return wide in _covering(index, read_alternative(narrow, matchers))


def _covering(index: CoverageIndex[str], alternative: Alternative) -> set[str]:
    line = read_line(alternative)
    found = (index.covering(case, line.predicate) for case in line.cases)
    return set.intersection(*({text for _, texts in one for text in texts} for one in found))


def _with_facts(name: str, streams: Iterable[bytes]) -> Iterator[str]:
    predicate = INSTALLED[name].predicate({})
    learnt: Any = getattr(predicate, "learnt", lambda _: {})
    for stream in streams:
        facts = learnt(Peeked(stream))
        given = ((one.name, facts.get(one.name, "")) for one in INSTALLED[name].options)
        met = {option: value for option, value in given if _PLAIN.fullmatch(value)}
        for option, value in met.items():
            yield f"{name} {option}={value}"
            if (name, option) in _NO_PATTERNS:
                continue
            yield f"{name} {option}=*"
            if option not in _FEW_VALUES:
                yield f"{name} {option}={value[:2]}*"
            if "." in value.strip(".") and option not in _FEW_VALUES:
                yield f"{name} {option}=*.{value.partition('.')[2]}"
        if len(met) > 1:
            yield f"{name} " + " ".join(f"{option}={value}" for option, value in met.items())


def _refusal(matcher: IProtocolMatcher, option: str) -> str:
    try:
        matcher.predicate({option: "a..b"})
    except OptionError as error:
        return str(error)
    return ""


def _verdict(alternative: Alternative, data: bytes) -> Verdict:
    verdict = alternative.predicate(Peeked(data))
    if not alternative.negated:
        return verdict
    return {Verdict.MATCH: Verdict.NO, Verdict.NO: Verdict.MATCH}.get(verdict, verdict)


def _first_match(alternative: Alternative, stream: bytes) -> int | None:
    """Give after how many bytes a line matches, by halving: its answer never changes back."""
    if _verdict(alternative, stream) is not Verdict.MATCH:
        return None
    low, high = 0, len(stream)
    while high - low > 1:
        middle = (low + high) // 2
        if _verdict(alternative, stream[:middle]) is Verdict.MATCH:
            high = middle
        else:
            low = middle
    return high


class CoverageTests(SynchronousTestCase):
    def test_covered_or_not(self) -> None:
        for wide, narrow in (
            ("any", "ssh"), ("any", "not ssh"), ("any", "payload text=a"), ("ssh", "ssh"),
            ("ssh", "ssh software=a"), ("tls", "tls sni=a alpn=h2"),
            ("tls alpn=h2", "tls sni=a alpn=h2"), ("tls alpn=h2,http/1.1", "tls alpn=h2"),
            ("tls sni=*", "tls sni=a,b"), ("tls sni=*", "tls sni=~(a|b)"),
            ("tls sni=A.example.", "tls sni=a.EXAMPLE"),
            ("tls sni=*.example.com", "tls sni=a.b.example.com"),
            ("tls sni=*.example.com", "tls sni=*.b.example.com"),
            ("tls sni=.example.com", "tls sni=example.com"),
            ("tls sni=.example.com", "tls sni=.a.example.com"), ("tls sni=none,*", "tls sni=none"), ("tls alpn=none,h2", "tls alpn=none"),
            ("tls sni=none,*", "tls sni=a,none"), ("tls sni=www*", "tls sni=www.example.com"),
            ("tls sni=*.a.example alpn=h2", "tls alpn=h2 sni=b.a.example"),
            ("not tls sni=a alpn=h2", "not tls alpn=h2 sni=a"),
            ("tls ech=yes", "tls ech=yes alpn=h2"), ("http path=/api/*", "http path=/api/v1/*"),
            ("http path=/api/*", "http path=/api/ host=*.example.com"),
            ("ssh software=OpenSSH_*", "ssh software=OpenSSH_9*"),
            ("payload hex=0011", "payload hex=0011"), ("not tls", "ssh"),
            ("not tls", "payload text=ab"), ("not tls sni=a", "not tls sni=a"),
            ("not tls sni=a", "ssh software=b"),
        ):  # fmt: skip
            self.assertTrue(covers(wide, narrow), (wide, narrow))
        for wide, narrow in (
            ("ssh", "any"), ("ssh", "tls"), ("ssh software=a", "ssh"), ("tls sni=a", "tls sni=a,b"),
            ("tls sni=*", "tls sni=none"), ("tls alpn=*", "tls alpn=none"), ("tls sni=n*", "tls sni=none"),
            ("tls sni=*", "tls sni=~a,none"), ("tls sni=*.example.com", "tls sni=example.com"),
            ("tls sni=*.example.com", "tls sni=?.example.com"),
            ("tls sni=*.com", "tls sni=~.*[.]com"), ("tls sni=a", "tls alpn=h2"),
            ("ssh software=A", "ssh software=a"), ("http path=/api/*", "http path=/ap*"),
            ("payload hex=00", "payload hex=0011"), ("regex pattern=a", "regex pattern=a within=9"),
            ("not tls", "tls"), ("not tls", "any"), ("not tls", "not ssh"),
            ("not tls sni=a", "tls sni=b"), ("not any", "ssh"), ("tls", "not ssh"),
        ):  # fmt: skip
            self.assertFalse(covers(wide, narrow), (wide, narrow))
        names = ",".join(f"a{number}" for number in range(40))
        line = f"tls sni={names} alpn={names}"
        self.assertTrue(covers(line, line))
        self.assertFalse(covers("tls", line))

    def test_options_of_hosts_and_of_other_packages(self) -> None:
        self.assertTrue(covers("tls sni=a", "tls sni=a", MATCHERS))
        self.assertFalse(covers("tls", "tls sni=a", MATCHERS))
        self.assertFalse(covers("not tls", "ssh", MATCHERS))
        hosts, refusing = (
            {
                (name, option.name)
                for name, matcher in INSTALLED.items()
                for option in matcher.options
                if test(matcher, option)
            }
            for test in (
                lambda _, option: option.kind in HOSTS,
                lambda matcher, option: "has an empty part" in _refusal(matcher, option.name),
            )
        )
        self.assertEqual(hosts, refusing)

    def test_raising_first_bytes(self) -> None:
        class Raises:
            longest = 1

            @property
            def first_bytes(self) -> frozenset[int]:
                raise ZeroDivisionError

            def __call__(self, peeked: Peeked, /) -> Verdict:
                return Verdict.NO

        index: CoverageIndex[str] = CoverageIndex()
        index.add(read_line(read_alternative("not ssh", INSTALLED)), "not ssh")
        tls = read_alternative("tls", INSTALLED)
        self.assertEqual(_covering(index, tls), {"not ssh"})
        self.assertEqual(_covering(index, attrs.evolve(tls, predicate=Raises())), set())

    def test_covering_line_matches_no_later(self) -> None:
        samples = all_samples()
        lines = {
            text: read_alternative(text, INSTALLED)
            for name in for_streams()
            if name not in _NO_BARE_LINE
            for text in (name, f"not {name}", *_with_facts(name, samples.get(name, ())))
        }
        index: CoverageIndex[str] = CoverageIndex()
        for text, alternative in lines.items():
            index.add(read_line(alternative), text)
        compared = 0
        for text, narrow in lines.items():
            covering = list(_covering(index, narrow))
            streams = samples.get(text.split()[0], ()) if covering else ()
            moments = [(stream, _first_match(narrow, stream)) for stream in streams]
            matched = {stream[:moment] for stream, moment in moments if moment}
            for wide in covering:
                compared += len(matched)
                for data in matched:
                    self.assertIs(_verdict(lines[wide], data), Verdict.MATCH, (wide, text, data))
        self.assertGreater(compared, 1000)
