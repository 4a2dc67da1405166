"""What the end-to-end tests share: the lab."""

from tests.support.crash import crash_lab, reached
from tests.support.lab import firewall, make_lab, pytest_runtest_makereport

__all__ = ["crash_lab", "firewall", "make_lab", "pytest_runtest_makereport", "reached"]
