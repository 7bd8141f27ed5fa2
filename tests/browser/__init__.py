"""The page in a real Chromium, with real clients behind it."""

import pytest

pytestmark = pytest.mark.whole
