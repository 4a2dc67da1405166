"""ufw: rules of the kind that its users add by hand, with a comment; they come after those that are there."""

import shlex
from pathlib import Path

from netagent.coexist.docker import legacy_chains
from netagent.coexist.programs import change, run
from netagent.firewall.marks import MARK, UFW_CHAINS, Needs, Presence, ufw_rules

_COMMENT = f" comment '{MARK}'"
_FILES = ("/etc/ufw/user.rules", "/lib/ufw/user.rules")
_STORED_MARK = f"comment={MARK.encode().hex()}"
"""How ufw writes a comment into its files."""


class Ufw:
    """ufw's rules of both families."""

    name = "ufw"

    def reconcile(self, needs: Needs | None, presence: Presence) -> list[str]:
        """Bring our rules there to what ``needs`` asks for, None: none; return what was done, a line each.

        While ufw is not active nothing is added.
        """
        chains = presence.chains | (legacy_chains() if presence.legacy else frozenset())
        is_active = any(chain in UFW_CHAINS for _, chain in chains)
        if not (is_active if needs else _has_marks()):
            return []
        listed = [line for line in run(("ufw", "show", "added")).splitlines() if line.startswith("ufw ")]
        ours = [line.removesuffix(_COMMENT) for line in listed if line.endswith(_COMMENT)]
        others = {line.partition(" comment ")[0] for line in listed if not line.endswith(_COMMENT)}
        # A rule that somebody else has added would become ours, comment and all, and later be deleted with ours.
        wanted = [rule for rule in (ufw_rules(needs) if needs else ()) if rule not in others]
        for rule in ours:
            if rule not in wanted:
                change(_deletion(rule))
        for rule in wanted:
            if rule not in ours:
                change((*shlex.split(rule), "comment", MARK))
        return [f"rules in ufw: {', '.join(wanted) or 'none'}"] if set(ours) != set(wanted) else []


def _deletion(rule: str) -> list[str]:
    words = shlex.split(rule)
    place = 2 if words[1] == "route" else 1
    return [*words[:place], "delete", *words[place:]]


def _has_marks() -> bool:
    paths = (path for path in map(Path, _FILES) if path.exists())
    return any(_STORED_MARK in path.read_text(errors="replace") for path in paths)
