"""What holds for all tests."""

import signal

from hypothesis import settings

from tests.support.cni import build_plugin

# Properties are about results: a busy machine would fail them by its own slowness.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A shell's job in the background ignores it, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    build_plugin()
