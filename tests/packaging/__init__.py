import pytest

pytestmark = [pytest.mark.whole, pytest.mark.by_turns]
