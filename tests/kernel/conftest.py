"""Namespaces and the real kernel for every test here."""

from tests.support.netns import host, kernel, sandbox

__all__ = ["host", "kernel", "sandbox"]
