"""Docker: rules in its chain DOCKER-USER, which it leaves to others and asks before its own (docs.docker.com).

They stand behind whatever the administrator has there, before the RETURN at its end. Docker sets the policy of FORWARD
to DROP; packets between other programs' interfaces would never get further.
"""

from netagent.coexist.programs import change, run
from netagent.errors import EnvironmentProblem
from netagent.firewall.iptables import lock
from netagent.firewall.marks import DOCKER_CHAIN as CHAIN
from netagent.firewall.marks import MARK, Needs, Presence, docker_rules

_PROGRAMS = {
    "ip": "iptables-nft",
    "ip6": "ip6tables-nft",
    "legacy4": "iptables-legacy",
    "legacy6": "ip6tables-legacy",
}


class DockerFirewall:
    """Docker's rules, in iptables of either kind and both families."""

    name = "docker"

    def reconcile(self, needs: Needs | None, presence: Presence) -> list[str]:
        """Bring our rules there to what ``needs`` asks for, None: none; return what was done, a line each."""
        done = []
        chains = presence.chains | (legacy_chains() if presence.legacy else frozenset())
        for where, program in _PROGRAMS.items():
            if (where, CHAIN) in chains:
                listing = run((program, *lock.WAIT, "-S", CHAIN)).splitlines()
                script = _script(listing, docker_rules(needs) if needs else ())
                if script:
                    change((f"{program}-restore", "--noflush", *lock.WAIT), stdin=script)
                    done.append(f"rules in {CHAIN} of {program}" if needs else f"no rules in {CHAIN} of {program}")
        return done


def _script(listing: list[str], wanted: tuple[str, ...]) -> str:
    """Return what iptables-restore must do to get from ``listing`` to ``wanted``, empty if nothing is to be done."""
    rules = [line.removeprefix(f"-A {CHAIN} ") for line in listing if line.startswith(f"-A {CHAIN} ")]
    ours = [rule for rule in rules if f"--comment {MARK} " in rule]
    others = [rule for rule in rules if rule not in ours]
    place = others.index("-j RETURN") if "-j RETURN" in others else len(others)
    if rules == [*others[:place], *wanted, *others[place:]]:
        return ""
    lines = [*(f"-D {CHAIN} {rule}" for rule in ours)]
    lines += [f"-I {CHAIN} {place + number} {rule}" for number, rule in enumerate(wanted, 1)]
    return "\n".join(("*filter", *lines, "COMMIT", ""))


def legacy_chains() -> frozenset[tuple[str, str]]:
    """Return the chains of iptables-legacy's filter tables. Call it only if there are such: asking makes them."""
    found = set()
    for where in ("legacy4", "legacy6"):
        try:
            listing = run((_PROGRAMS[where], *lock.WAIT, "-S"))
        except EnvironmentProblem as problem:
            if lock.is_held(problem.message):
                raise
            continue
        found |= {(where, line.split()[1]) for line in listing.splitlines() if line.startswith("-N ")}
    return frozenset(found)
