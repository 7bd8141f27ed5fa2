"""What serves changed rules is made of what served the ones before: it decides as what is made anew."""

import itertools
from base64 import b64encode
from typing import Any

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.detection.test_changed import decisions
from tests.support.examples import scaled
from txmux.access.admission import Admission
from txmux.backends.upstream import Upstream
from txmux.client.configuration import Configuration, RuleLayer
from txmux.detection.ranked import finish
from txmux.processes.worker.received_rules import read_replacement
from txmux.rules.difference import difference, digest
from txmux.rules.model import Listener, Rules
from txmux.rules.optional import missing
from txmux.rules.packing import pack, pack_difference, unpack
from txmux.rules.reading.parser import parse
from txmux.serving.serving import Serving

LINES = [
    *(f"tls sni={name}.test" for name in "abcdefghijk"),
    "ssh", "any", "tls", "http host=a.test", "not tls", "postgres", "dns", "payload hex=16",
]  # fmt: skip
ROUTES = st.lists(
    st.tuples(
        st.sampled_from("abcdefghijklmnopq"),
        st.sampled_from(LINES),
        st.sampled_from(("close", "127.0.0.1:9", "127.0.0.1:8", "one", "two", "reset")),
        st.sampled_from(("", "", "dry_run = yes", "from = 10.0.0.0/8", "log = no")),
        st.sampled_from(("", "", "p", "q", "tunnel")),
    ),
    unique_by=lambda one: one[0],
    min_size=3,
)
TUNNELS = ("",) if missing("tunnel") else ("", "*", "p")
VERSIONS = st.lists(
    st.tuples(
        ROUTES,
        st.sampled_from(("close", "one", "127.0.0.1:7")),
        st.integers(8, 10),
        st.sampled_from(("pq", "qp", "p", "pqr")),
        st.sampled_from(TUNNELS),
    ),
    min_size=2,
    max_size=4,
)
Version = tuple[list[tuple[str, str, str, str, str]], str, int, str, str]


def rules_of(version: Version) -> Rules:
    routes, default, port, listeners, tunnel = version
    text = f"[txmux]\naccess_log = off\n[backend one]\nserver = 127.0.0.1:{port}\n"
    text += "[backend two]\nserver = 127.0.0.1:7\nfallback = one\n"
    for name in listeners:
        text += f"[listen {name}]\nendpoint = 127.0.0.1:{1000 + ord(name)}\ndefault = {default}\n"
        text += f"peek_limit = {1000 * port}\n" if name == "q" else ""
    if tunnel:
        text += f"[route tunnel]\nunder = {tunnel}\nmatch = socks5\ntunnel = yes\n"
        text += "[route inner]\nmatch = ssh\nunder = tunnel\nbackend = one\n"
    for name, match, backend, more, under in routes:
        text += f"[route {name}]\nmatch = {match}\nbackend = {backend}\n{more}\n"
        is_there = under in {*listeners} or (under == "tunnel" and tunnel)
        text += f"under = {under if is_there else '*'}\n"
    return parse(text, "x.ini")


def known_of(destination: Any) -> object:
    return destination.backend if isinstance(destination, Upstream) else destination


def layer_of(layer: RuleLayer) -> object:
    detector: Any = layer.detector
    return (
        [
            (one.name, one.under, one.log, one.clients, known_of(one.destination))
            for one in detector.routes
        ],
        [(known_of(one.destination), one.clients, one.after) for one in layer.silent],
        known_of(layer.default),
        (layer.server_first, layer.goes_by_hello, layer.depends_on_client, detector.peek_limit),
        [one.name for one in layer.hello_readers.items],
        [one.name for one in layer.outer.items],
        decisions(detector, datagrams=False),
    )


def configuration_of(configuration: Configuration) -> object:
    return (
        attrs.evolve(configuration.settings),
        layer_of(configuration.top),
        {name: layer_of(layer) for name, layer in configuration.inside.items()},
        (configuration.version, configuration.hands_over, configuration.in_process),
    )


def values(rules: Rules) -> object:
    routes = [
        (attrs.evolve(one, alternatives=()), [line.text for line in one.alternatives])
        for one in rules.routes
    ]
    return rules.path, rules.settings, rules.listeners, rules.backends, routes


class ChangedTest(SynchronousTestCase):
    def serving(self, rules: Rules) -> Serving:
        serving = Serving(rules, None, Clock(), accepting=False)
        for listener in rules.listeners:
            serving.add(listener, self.admission(listener))
        return serving

    def admission(self, listener: Listener) -> Admission:
        return Admission(listener, lambda: 0.0)

    @example(
        versions=[
            ([("a", "ssh", to, "", "")], "close", 8, "p", "")
            for to in ("one", "handover:/run/x", "one")
        ],
        warm=False,
    )
    @example(
        versions=[([("a", "ssh", "one", "", "")], "close", 8, "pq", one) for one in TUNNELS[::-1]],
        warm=False,
    )
    @settings(max_examples=scaled(60), deadline=None)
    @given(versions=VERSIONS, warm=st.booleans())
    def test_as_made_anew(self, versions: list[Version], warm: bool) -> None:  # noqa: FBT001
        old = rules_of(versions[0])
        serving = self.serving(unpack(pack(old)))
        for version in versions[1:]:
            new = rules_of(version)
            for listener in serving.listeners if warm else ():
                for byte in (0x16, ord("S")):
                    listener.configuration.top.detector.plan(byte)
            packed = b64encode(pack_difference(difference(old, new), new)).decode()
            replacement = finish(read_replacement(packed, serving.rules, serving.table))
            self.assertEqual(values(replacement.rules), values(unpack(pack(new))))
            self.assertEqual(digest(replacement.rules), digest(new))
            steps = serving.prepare_in_steps(replacement, _NoSockets(), self.admission)
            prepared = finish(steps)
            prepared.reserved.clear()
            serving.commit(prepared, listening=False)
            anew = self.serving(unpack(pack(new)))
            anew.version = serving.version
            for one in anew.listeners:
                one.configuration = attrs.evolve(one.configuration, version=anew.version)
            self.assertEqual(
                [configuration_of(one.configuration) for one in serving.listeners],
                [configuration_of(one.configuration) for one in anew.listeners],
            )
            its, others = (
                {one.backend for one in some.upstreams.all()} for some in (serving, anew)
            )
            self.assertEqual(its, others)
            self.assertEqual(dict(serving.upstreams.uses), dict(anew.upstreams.uses))
            old = new

    def test_given_up(self) -> None:
        """Steps that are not taken to the end leave nothing behind, wherever they are given up."""
        old, new = (
            rules_of(
                ([("a", "ssh", to, "", ""), ("b", "tls", "two", "", "")], "close", port, "p", "")
            )
            for to, port in (("one", 8), ("127.0.0.1:9", 9))
        )
        serving = self.serving(unpack(pack(old)))
        before = {one.backend for one in serving.upstreams.all()}
        packed = b64encode(pack_difference(difference(old, new), new)).decode()
        for count in itertools.count():
            replacement = finish(read_replacement(packed, serving.rules, serving.table))
            steps = serving.prepare_in_steps(replacement, _NoSockets(), self.admission)
            is_over = len([*itertools.islice(steps, count)]) < count
            if is_over:
                break
            steps.close()
            self.assertEqual({one.backend for one in serving.upstreams.all()}, before, count)
        self.assertGreater(count, 5)


class _NoSockets(dict[str, Any]):
    """No port is opened here."""

    def __missing__(self, key: str) -> Any:
        return self

    def dup(self) -> Any:
        return self

    def close(self) -> None:
        pass
