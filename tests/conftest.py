"""What holds for all tests."""

from hypothesis import settings

# Properties are about results: a busy machine would fail them by its own slowness.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
