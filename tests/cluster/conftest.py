"""What the end-to-end tests share: the lab."""

from tests.support.lab import make_lab, pytest_runtest_makereport

__all__ = ["make_lab", "pytest_runtest_makereport"]
