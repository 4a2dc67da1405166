"""What holds for all tests."""

import signal

from hypothesis import HealthCheck, settings

from tests.support.cni import build_plugin

# Properties are about results: a busy machine would fail them by its own slowness. The same examples each time, so that
# who changes something else is not held up by what chance finds; `--hypothesis-profile=searching` looks further.
UNHURRIED = {"deadline": None, "suppress_health_check": (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)}
settings.register_profile("searching", **UNHURRIED)
settings.register_profile("unhurried", **UNHURRIED, derandomize=True)
settings.load_profile("unhurried")

# A shell's job in the background ignores it, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    build_plugin()
