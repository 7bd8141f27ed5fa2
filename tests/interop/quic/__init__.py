"""QUIC and HTTP/3 through one UDP port, with real clients and servers."""

import pytest

pytestmark = pytest.mark.by_turns
