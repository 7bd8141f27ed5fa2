"""Every matcher, by what its test file has of clients and of others; `tests/matchers/all_samples.py` says what that is."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import txmux.matchers
from tests.matchers import all_samples as all_samples_module
from tests.matchers.all_samples import CONFIGURED, all_samples, for_streams, sample_files
from tests.matchers.asking import over_udp
from txmux import testing
from txmux.detection.registry import installed_matchers, transports_of
from txmux.errors import OptionError
from txmux.interfaces import Datagrams, Peeked, Predicate, Transport, Verdict
from txmux.testing import decided, facts, flow_decided

_BUILT_IN = [path.stem for path in Path(txmux.matchers.__path__[0]).glob("[a-z]*.py")]


def each_with(*tables: str) -> pytest.MarkDecorator:
    names = {name for table in tables for name in all_samples(table)}
    return pytest.mark.parametrize("name", sorted(names))


def rows(name: str, table: str) -> Any:
    return all_samples(table).get(name, ())


def read_options(options: str | dict[str, str]) -> dict[str, str]:
    if isinstance(options, dict):
        return options
    return dict(word.split("=", 1) for word in options.split())


def asked(name: str, table: str) -> Iterator[tuple[Predicate, Peeked, Any, Any]]:
    matcher = installed_matchers()[name]
    for row in rows(name, table):
        options, data, *expected = row
        yield matcher.predicate(read_options(options)), Peeked(data), expected, row
    for row in rows(name, f"DATAGRAM_{table}"):
        options, data, *expected = row
        flow = (data,) if isinstance(data, bytes) else tuple(data)
        yield over_udp(matcher, **read_options(options)), Datagrams(flow), expected, row


def _of_all(*tables: str) -> set[Any]:
    found = [row for table in tables for rows in all_samples(table).values() for row in rows]
    return {row[0] if isinstance(row, tuple) and isinstance(row[-1], int) else row for row in found}


@pytest.mark.parametrize("module", sorted(_BUILT_IN))
def test_built_in(module: str) -> None:
    """Each matcher is called as its module is, and has samples for all transports, but where its line says what it matches."""
    name = module.replace("_", "-")
    matcher = installed_matchers()[name]
    assert matcher.name == name
    for transport, table in ((Transport.TCP, "SAMPLES"), (Transport.UDP, "DATAGRAMS")):
        if transport in transports_of(matcher) and name not in CONFIGURED:
            assert name in all_samples(table), f"write {table} in tests/matchers/test_{module}.py"


@pytest.mark.parametrize("name", sorted(for_streams()))
def test_silence(name: str) -> None:
    """None of them decides before the first byte, whatever the option."""
    matcher = installed_matchers()[name]
    for option in matcher.options:
        options = testing.with_example(matcher, option.name)
        assert options is not None
        assert matcher.predicate(options)(Peeked(b"")) is Verdict.NEED_MORE


@each_with("SAMPLES", "MATCHED")
def test_streams(name: str) -> None:
    """The first bytes of clients are matched, those of others refused, each at its byte; and the contract is kept for any bytes."""
    samples = rows(name, "SAMPLES")
    at = getattr(sample_files()[name][0], "DECIDED_AT", None)
    if at is not None:
        samples = zip(samples, [at] * len(samples) if isinstance(at, int) else at, strict=True)
    testing.check_matcher(
        installed_matchers()[name],
        [*samples, *rows(name, "MATCHED")],
        rows(name, "REFUSED"),
        undecided=rows(name, "UNDECIDED"),
    )


@each_with("DATAGRAMS", "MATCHED_DATAGRAMS")
def test_datagrams(name: str) -> None:
    """So it is for first datagrams."""
    testing.check_datagrams(
        installed_matchers()[name],
        [*rows(name, "DATAGRAMS"), *rows(name, "MATCHED_DATAGRAMS")],
        rows(name, "REFUSED_DATAGRAMS"),
        undecided=rows(name, "UNDECIDED_DATAGRAMS"),
    )


@each_with("VERDICTS", "DATAGRAM_VERDICTS")
def test_options(name: str) -> None:
    """With options, clients are matched or refused as the rows say."""
    for predicate, peeked, (verdict, *at), row in asked(name, "VERDICTS"):
        if isinstance(peeked, Datagrams):
            found = flow_decided(predicate, peeked.datagrams)
        else:
            found = decided(predicate, peeked.data)
        assert found.verdict is verdict, row
        assert not at or found.at == at[0], (found.at, row)


@each_with("TRIED")
def test_tried(name: str) -> None:
    """The contract is kept with further options."""
    for line in rows(name, "TRIED"):
        predicate = installed_matchers()[name].predicate(read_options(line))
        more = rows(name, "TRIED_ON") or rows(name, "SAMPLES")
        testing.check_predicate(predicate, more=more, examples=30)


@each_with("FACTS", "DATAGRAM_FACTS")
def test_facts(name: str) -> None:
    """What is learnt of a client, for the access log."""
    for predicate, peeked, (expected,), row in asked(name, "FACTS"):
        assert facts(predicate, peeked) == expected, row


def test_facts_of_others() -> None:
    """Of a client that it refuses a matcher learns nothing, or that would stand in the line of another protocol."""
    streams = [*map(Peeked, _of_all("SAMPLES", "MATCHED", "REFUSED"))]
    flows = [
        Datagrams((first,) if isinstance(first, bytes) else first)
        for first in _of_all("DATAGRAMS", "MATCHED_DATAGRAMS", "REFUSED_DATAGRAMS")
    ]
    for name in installed_matchers().keys() - CONFIGURED:
        matcher = installed_matchers()[name]
        asked_about: list[tuple[Predicate, Iterable[Peeked]]] = []
        if Transport.TCP in transports_of(matcher):
            asked_about.append((matcher.predicate({}), streams))
        if Transport.UDP in transports_of(matcher):
            asked_about.append((over_udp(matcher), flows))
        for predicate, samples in asked_about:
            for peeked in samples:
                if predicate(peeked) is Verdict.NO:
                    assert facts(predicate, peeked) == {}, (name, peeked)


@each_with("KEYS", "DATAGRAM_KEYS")
def test_keys(name: str) -> None:
    """The name by which routes are looked up."""
    for predicate, peeked, (expected,), row in asked(name, "KEYS"):
        assert predicate.key.read(peeked) == expected, row  # type: ignore[attr-defined]


@each_with("UNUSABLE")
def test_unusable(name: str) -> None:
    """Options that cannot be used are an error that says why."""
    for line, message in rows(name, "UNUSABLE"):
        with pytest.raises(OptionError) as caught:
            installed_matchers()[name].predicate(read_options(line))
        assert message in str(caught.value), line


def test_tables_have_known_names() -> None:
    """A name that is not one of these, and that nothing uses, is a table by a mistyped name."""
    known = set(re.findall(r"``([A-Z_]+)``", all_samples_module.__doc__ or ""))
    known |= {name.replace("DATAGRAM_", "") for name in known} | {"MATCHED_DATAGRAMS"}
    known |= {"REFUSED_DATAGRAMS", "UNDECIDED_DATAGRAMS"}
    texts = [path.read_text() for path in Path(__file__).parent.rglob("*.py")]
    used = {
        node.id if isinstance(node, ast.Name) else node.name
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Name, ast.alias))
        and not isinstance(getattr(node, "ctx", None), ast.Store)
    }
    for files in sample_files().values():
        for file in files:
            names = {name for name in vars(file) if name.isupper() and name[0] != "_"}
            assert names <= known | used, file.__name__
