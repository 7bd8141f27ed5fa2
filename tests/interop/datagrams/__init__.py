import pytest

pytestmark = pytest.mark.by_turns
