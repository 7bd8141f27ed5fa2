"""What becomes of texts that chance has written."""

from __future__ import annotations

import builtins
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt
from tests.convert.sslh.pieces import LISTEN


class AnyTests(SynchronousTestCase):
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        with patch.object(builtins, "open", side_effect=OSError):
            attempt(text, "sslh")

    @given(
        st.lists(
            st.sampled_from(
                [
                    *("listen", "protocols", "name", "host", "port", '"tls"', '"ssh"', '"443"'),
                    *('"\\n[x]"', '"# a"', "sni_hostnames", "regex_patterns", '"^a$"', '"\\xff"'),
                    *("true", *"{}():;,[]7"),
                ]
            )
        )
    )
    def test_any_tokens(self, tokens: list[str]) -> None:
        for text in (" ".join(tokens), f"{LISTEN} protocols: ( {{ {' '.join(tokens)} }} );"):
            attempt(text, "sslh")
