"""ufw: rules of the kind that its users add by hand, with a comment; they come after those that are there.

ufw 0.36 reads its rules first, then waits for its lock, and at the end writes all of them: of two that run at a time
one undoes what the other did, and a reload writes as well. So nothing is asked of it while somebody has its lock, and
nothing changed before its files have rested for a while: a script may have more commands to come. Where they met
all the same, a reload may have loaded a rule of ours and then left it out of the files: added again, it is there twice.
"""

import fcntl
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from netagent.coexist.docker import legacy_chains
from netagent.coexist.programs import change, run
from netagent.errors import EnvironmentProblem
from netagent.firewall.marks import MARK, UFW_CHAINS, Needs, Presence, ufw_rules

_COMMENT = f" comment '{MARK}'"
_FILES = ("/etc/ufw/user.rules", "/etc/ufw/user6.rules", "/lib/ufw/user.rules", "/lib/ufw/user6.rules")
_STORED_MARK = f"comment={MARK.encode().hex()}"
"""How ufw writes a comment into its files."""

_LOCK = Path("/run/ufw.lock")
REST_S = 1.0
"""Python and ufw take some 0.3 s to begin, and a script's next command begins at once."""
_PATIENCE_S = 20.0
_LOOK_S = 0.05


class Ufw:
    """ufw's rules of both families. ``files`` are what it writes, ``lock`` what it locks meanwhile."""

    name = "ufw"

    def __init__(self, files: tuple[str, ...] = _FILES, lock: Path = _LOCK) -> None:
        self._files = tuple(map(Path, files))
        self._lock = lock
        self._added: set[str] = set()

    def reconcile(self, needs: Needs | None, presence: Presence) -> list[str]:
        """Bring our rules there to what ``needs`` asks for, None: none; return what was done, a line each.

        While ufw is not active nothing is added.
        """
        chains = presence.chains | (legacy_chains() if presence.legacy else frozenset())
        is_active = any(chain in UFW_CHAINS for _, chain in chains)
        if not (is_active if needs else self._has_marks()):
            return []
        self._await(self._is_idle)
        surplus, missing = _differences(needs)
        if (surplus or missing) and self._await(self._is_at_rest):
            surplus, missing = _differences(needs)
        # Deleting a rule loads all of them from the files anew.
        again = [rule for rule in missing if rule in self._added]
        for command in (
            *map(_deletion, surplus),
            *map(_addition, missing),
            *(command for rule in again for command in (_deletion(rule), _addition(rule))),
        ):
            self._await(self._is_idle)
            change(command)
        self._added.update(missing)
        if not surplus and not missing:
            return []
        return [f"rules in ufw: {', '.join(ufw_rules(needs) if needs else ()) or 'none'}"]

    def _has_marks(self) -> bool:
        return any(_STORED_MARK in path.read_text(errors="replace") for path in self._files if path.exists())

    def _is_idle(self) -> bool:
        if not self._lock.exists():
            return True
        with self._lock.open("r+") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _is_at_rest(self) -> bool:
        ages = [time.time() - path.stat().st_mtime for path in self._files if path.exists()]
        return self._is_idle() and not any(0 <= age < REST_S for age in ages)

    def _await(self, condition: Callable[[], bool]) -> bool:
        """Tell whether ``condition`` had to be waited for."""
        deadline = time.monotonic() + _PATIENCE_S
        has_waited = False
        while not condition():
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"ufw is being changed for {_PATIENCE_S:g} s", hint=f"see who has {self._lock}"
                )
            has_waited = True
            time.sleep(_LOOK_S)
        return has_waited


def _differences(needs: Needs | None) -> tuple[list[str], list[str]]:
    """Return the rules of ours that ``needs`` does not ask for, and those that are not there."""
    listed = [line for line in run(("ufw", "show", "added")).splitlines() if line.startswith("ufw ")]
    ours = [line.removesuffix(_COMMENT) for line in listed if line.endswith(_COMMENT)]
    others = {line.partition(" comment ")[0] for line in listed if not line.endswith(_COMMENT)}
    # A rule that somebody else has added would become ours, comment and all, and later be deleted with ours.
    wanted = [rule for rule in (ufw_rules(needs) if needs else ()) if rule not in others]
    return [rule for rule in ours if rule not in wanted], [rule for rule in wanted if rule not in ours]


def _addition(rule: str) -> list[str]:
    return [*shlex.split(rule), "comment", MARK]


def _deletion(rule: str) -> list[str]:
    words = shlex.split(rule)
    place = 2 if words[1] == "route" else 1
    return [*words[:place], "delete", *words[place:]]
