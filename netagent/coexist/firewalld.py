"""firewalld: a zone of our own for our interfaces, and policies for what is forwarded to and from it.

Files in its directory of permanent configuration, as its manual has them, and one reload when they have changed. What
somebody else has configured at runtime only is lost with a reload, so none is made without need.
"""

from pathlib import Path

from netagent.coexist.programs import change
from netagent.firewall.marks import MARK, Needs, Presence, firewalld_chains, firewalld_files

_DIRECTORY = Path("/etc/firewalld")
_RUNNING = (("inet", "filter_FORWARD_ZONES"), ("ip", "FORWARD_ZONES"), ("legacy4", "FORWARD_ZONES"))
"""Chains that firewalld has with its backends nftables and iptables."""


class Firewalld:
    """firewalld's permanent and running configuration."""

    name = "firewalld"

    def __init__(self, directory: Path = _DIRECTORY) -> None:
        self._directory = directory

    def reconcile(self, needs: Needs | None, presence: Presence) -> list[str]:
        """Bring our zone and policies there to what ``needs`` asks for, None: none; return what was done.

        While firewalld does not run nothing is added; a reload is made only if it runs.
        """
        is_running = not presence.chains.isdisjoint(_RUNNING)
        if needs is not None and not is_running:
            return []
        wanted = firewalld_files(needs) if needs else {}
        present = self._present()
        has_changed = present != wanted
        if has_changed:
            self._write(wanted, present)
        has_nftables = _RUNNING[0] in presence.chains
        is_loaded = not has_nftables or firewalld_chains(wanted) <= presence.chains
        if not has_changed and is_loaded:
            return []
        if is_running:
            change(("firewall-cmd", "--reload"))
        return [f"zone {MARK} in firewalld" if needs else f"no zone {MARK} in firewalld"]

    def _present(self) -> dict[str, str]:
        paths = (path for kind in ("zones", "policies") for path in (self._directory / kind).glob(f"{MARK}*.xml"))
        return {str(path.relative_to(self._directory)): path.read_text(errors="replace") for path in paths}

    def _write(self, wanted: dict[str, str], present: dict[str, str]) -> None:
        for name in present.keys() - wanted.keys():
            (self._directory / name).unlink(missing_ok=True)
        for name, text in wanted.items():
            path = self._directory / name
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            fresh = path.with_suffix(".netagent")
            fresh.write_text(text)
            fresh.chmod(0o644)
            fresh.replace(path)
