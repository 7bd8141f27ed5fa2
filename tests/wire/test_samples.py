"""The parsers by what the tests of the matchers that use them have of clients."""

from collections.abc import Callable
from itertools import product

import pytest

from tests.matchers import test_samples as samples

_BOTH = samples.test_options, samples.test_facts
_STREAMS = product((samples.test_streams, *_BOTH), ("http", "http2", "postgres", "tls"))
_FLOWS = product((samples.test_datagrams, *_BOTH), ("dtls", "quic"))


@pytest.mark.parametrize(("check", "name"), [*_STREAMS, *_FLOWS])
def test_of_matchers(check: Callable[[str], None], name: str) -> None:
    check(name)
