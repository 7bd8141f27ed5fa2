"""Each owner's rules fail alone: every kind of fault, at every moment, beside an older and a younger owner."""

import pytest

pytestmark = pytest.mark.whole
