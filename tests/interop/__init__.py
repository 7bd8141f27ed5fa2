import pytest

pytestmark = pytest.mark.whole
