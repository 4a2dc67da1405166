"""What the end-to-end tests share: the lab."""

from tests.support.lab import firewall, make_lab, pytest_runtest_makereport

__all__ = ["firewall", "make_lab", "pytest_runtest_makereport"]
