"""The lock of iptables-legacy: one program at a time changes its tables, or lists them (iptables ``xshared.c``)."""

PATH = "/run/xtables.lock"
WAIT_S = 5
WAIT = ("--wait", str(WAIT_S))
"""The options by which a program waits for another one that holds it; without them it gives up at once."""


def is_held(words: str) -> bool:
    """Tell from what a program says when it fails whether another one held the lock."""
    return "xtables lock" in words
