"""``python -m tests.bench.sampled OUT ARGUMENT...``: ``netagent ARGUMENT...`` that looks at itself.

A thread notes every other millisecond what each thread is at, if it is not idle. Whenever ``OUT.ask`` appears, what was
noted since the last time is written to ``OUT`` as JSON, by place in the code, and ``OUT.ask`` removed.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL_S = 0.002
_LOOK_EVERY = 10
_IDLE = {"select", "wait", "get", "_worker", "_wait_for_tstate_lock", "accept", "poll", "_serve", "run"}
_IN_BACKGROUND = {"_flush_waiting", "_close_later"}
"""Of netagent itself: nobody waits for them."""
_PACKAGE = f"{Path(__file__).parents[2] / 'netagent'}/"


def where(frame: FrameType) -> str | None:
    """Return the innermost place in netagent, ``imports`` or ``libraries``; nothing for a thread that waits."""
    leaf = frame.f_code
    if leaf.co_name in (_IN_BACKGROUND if leaf.co_filename.startswith(_PACKAGE) else _IDLE):
        return None
    at: FrameType | None = frame
    place = ""
    while at is not None:
        name, function = at.f_code.co_filename, at.f_code.co_name
        if name.startswith("<frozen importlib"):
            return "imports"
        if not place and name.startswith(_PACKAGE):
            place = f"{name.removeprefix(_PACKAGE)}: {function}"
        at = at.f_back
    return place or f"libraries: {Path(leaf.co_filename).stem}.{leaf.co_name}"


def sample(out: Path) -> None:
    """Note until the process ends."""
    counts: Counter[str] = Counter()
    own, asked = threading.get_ident(), out.with_suffix(".ask")
    rounds = 0
    while True:
        time.sleep(INTERVAL_S)
        rounds += 1
        for thread, frame in sys._current_frames().items():
            if thread != own and (place := where(frame)) is not None:
                counts[place] += 1
        if rounds % _LOOK_EVERY == 0 and asked.exists():
            out.write_text(json.dumps({"rounds": rounds, "counts": counts}))
            asked.unlink()
            counts.clear()
            rounds = 0


def main() -> None:
    """Begin to look, then be the agent."""
    out = Path(sys.argv.pop(1))
    sys.setswitchinterval(0.0005)
    threading.Thread(target=sample, args=(out,), daemon=True).start()
    from netagent.__main__ import main as netagent

    netagent()


if __name__ == "__main__":
    main()
