"""The former names of `Service` and `WorkersTestCase`."""

from tests.processes.running import WorkersTestCase as UpgradeTestCase
from tests.support.services import Service as Upgrading

__all__ = ["UpgradeTestCase", "Upgrading"]
