"""Configurations of other programs, served by them and by txmux with what they become: the same servers answer."""

import pytest

pytestmark = pytest.mark.by_turns
