"""A lint of rules that were read again finds what a lint of the same rules finds that knows nothing of others."""

from collections.abc import Sequence
from functools import partial
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.support.folders import make_folder
from tests.support.growth import RULES
from tests.support.installed import names_missing
from txmux.rules.lint import narrowing
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Rules
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading import parser
from txmux.rules.reading.parser import load
from txmux.testing import steps_in

_FILES = ("crl.pem", "ca.pem", "key.pem", "secret")
_MATCHES = (
    "tls sni=a.test", "tls sni=b.test", "tls sni=c.test,A.test", "tls sni=a.test alpn=h2", "tls sni=d.test,b.test",
    "http host=a.test", "http host=d.test path=/x", "http host=b.test\n    tls sni=b.test",
    "tls sni=a.test\n    tls sni=a.test", "http host='a.test'", "payload text=GET", "ssh", "not ssh",
    "tls", "tls sni=*.test", "tls sni=~a.*", "http2", "grpc", "http", "any", "postgres", "postgres user=me", "redis", "memcached",
    "http path=x", "tls sni=a|b", "tls alpn=h2", "tls sni=none", "tls sni=203.0.113.1", "http host=localhost", "dns",
)  # fmt: skip
_COMMON = 8
_BACKENDS = (
    "127.0.0.1:{n}", "127.0.0.1:1", "close", "named", "127.0.0.1:2", "other", "reject", "byname", "127.0.0.1:3", "between",
)  # fmt: skip
_MORE = (
    "", "", "", "", "", "under = p", "from = 192.0.2.0/24", "dry_run = yes", "during = mon-fri", "under = outer",
    "under = outer\nclient_cert = any", "log = no", "not_from = 0.0.0.0/0, ::/0",
)  # fmt: skip
_HEADS = tuple(one for one in (
    "[listen p]\nendpoint = 127.0.0.1:1001\n",
    "[listen p]\nendpoint = 127.0.0.1:1001\ndefault = 127.0.0.1:3\n",
    "[listen p]\nendpoint = 127.0.0.1:1001\nsilent = between\n[listen u]\nendpoint = udp:127.0.0.1:1001\n",
    "[listen p]\nendpoint = 127.0.0.1:1001\nfirst = server\ndefault = 127.0.0.1:7\n",
    "[listen p]\nendpoint = 127.0.0.1:1001\nstarttls = smtp\n[listen q]\nendpoint = 127.0.0.1:1002\npeek_limit = 512\n",
) if not names_missing(one))  # fmt: skip
_NAMED = (
    "[backend named]\nserver = 127.0.0.1:4\n", "[backend named]\nserver =\n  127.0.0.1:4\n  127.0.0.1:4\n",
    "[backend named]\nserver = 127.0.0.1:4\nfallback = other\n", "[backend named]\nserver = 127.0.0.1:4\nqueue = 3\n",
    "[backend named]\nserver = 127.0.0.1:1\nproxy_protocol = v2\n",
)  # fmt: skip
_REST = (
    "[backend other]\nserver = 127.0.0.1:5\n[backend between]\nserver = 127.0.0.1:2\n"
    "[backend byname]\nserver = {sni}:443\nallow_names = *.test\n"
    "[route outer]\nmatch = tls sni=z.test\nterminate_tls = key.pem\ntls_client_ca = ca.pem\ntls_client = optional\nbackend = 127.0.0.1:6\n"
)


_Route = tuple[str, str, str]
_route = st.tuples(
    st.one_of(st.sampled_from(_MATCHES[:_COMMON]), st.sampled_from(_MATCHES)),
    st.one_of(st.sampled_from(_BACKENDS[:4]), st.sampled_from(_BACKENDS)),
    st.one_of(st.just(""), st.sampled_from(_MORE)),
)


@st.composite
def _edits(draw: st.DrawFn) -> list[str]:
    """Write rules, and what becomes of them by some edits, one after the other."""
    numbers = count(10)
    start = draw(st.integers(0, 20))
    fillers = [(f"f{n}", f"tls sni=f{n}.test", "127.0.0.1:{n}", "") for n in range(25)]
    routes = [*fillers[:start], *_named(draw(st.lists(_route, max_size=7)), numbers), *fillers[start:]]  # fmt: skip
    head, named = draw(st.sampled_from(_HEADS)), draw(st.sampled_from(_NAMED))
    versions = [_text(head, routes, named)]
    for _ in range(draw(st.integers(1, 4))):
        what = draw(st.integers(0, draw(st.sampled_from((7, 7, 9)))))
        place = draw(st.integers(0, len(routes) - 1))
        if what <= 3:
            routes[place:place] = _named([draw(_route)], numbers)
        elif what <= 5:
            del routes[place]
        elif what <= 7:
            routes[place] = (routes[place][0], *draw(_route))
        elif what == 8:
            routes.insert(draw(st.integers(0, len(routes) - 1)), routes.pop(place))
        elif draw(st.booleans()):
            head = draw(st.sampled_from(_HEADS))
        else:
            named = draw(st.sampled_from(_NAMED))
        versions.append(_text(head, routes, named))
    return versions


def _named(routes: Sequence[_Route], numbers: "count[int]") -> list[tuple[str, str, str, str]]:
    return [(f"r{next(numbers)}", *route) for route in routes]


def _text(head: str, routes: Sequence[tuple[str, str, str, str]], named: str) -> str:
    sections = [
        f"[route {name}]\nmatch =\n    {match}\nbackend = {backend.format(n=2000 + place)}\n{more}\n"
        for place, (name, match, backend, more) in enumerate(routes)
    ]
    return f"[txmux]\naccess_log = off\n{head}{''.join(sections)}{named}{_REST}"


class NarrowingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.patch(parser, "_last", None)
        self.patch(narrowing, "_last", None)
        self.patch(narrowing, "_MOST", 1)
        for name in _FILES:
            (self.folder / name).touch()

    def read(self, text: str) -> Rules:
        (self.folder / "rules.ini").write_text(text)
        return load(self.folder / "rules.ini", are_pem_files_there=False)

    @given(_edits())
    @settings(max_examples=scaled(50), deadline=None)
    def test_as_anew(self, versions: list[str]) -> None:
        parser._last = narrowing._last = None
        for text in versions:
            try:
                rules = self.read(text)
            except RulesError:
                continue
            found = lint(rules)
            last, narrowing._last = narrowing._last, None
            self.assertEqual(_lines(found), _lines(lint(rules)))
            narrowing._last = last

    def test_steps(self) -> None:
        """A changed line among a thousand costs a fraction of a lint."""
        narrowing._MOST = 4
        text = RULES["backends"](1000)
        rules = self.read(text)
        whole = steps_in(lambda: lint(rules))
        for change in (
            "[route last]\nmatch = ssh\nbackend = close\n",
            "[route last]\nmatch = tls sni=last.test\nbackend = b7\n",
        ):
            more = self.read(text + change)
            self.assertLess(steps_in(partial(lint, more)), whole / 5)


def _lines(problems: Sequence[Problem]) -> list[str]:
    return [str(problem) for problem in problems]
