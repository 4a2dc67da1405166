"""A runner of CNI configuration lists that does what libcni does: capabilities, prevResult, DEL in reverse.

See containernetworking/cni, libcni/api.go: ``AddNetworkList`` and ``DelNetworkList``.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Result = dict[str, Any]


class PluginFailed(Exception):
    """A plugin ended with an error."""


@dataclass(slots=True, kw_only=True)
class Runner:
    """Runs ``conflist`` with plugins from ``path``; remembers results, as libcni's cache does, for DEL.

    ``prefix`` is a command that enters a host.
    """

    conflist: Mapping[str, Any]
    path: Sequence[Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    _results: dict[tuple[str, str], Result] = field(default_factory=dict)

    def add(self, container: str, netns: str, interface: str = "eth0", **capabilities: Any) -> Result:
        """Call ADD of every plugin in order, each with the result so far; return the last one's."""
        result: Result | None = None
        for plugin in self.conflist["plugins"]:
            configuration = self._configuration(plugin, capabilities, result)
            result = json.loads(self._call("ADD", plugin, configuration, container, netns, interface))
        assert result is not None
        self._results[container, interface] = result
        return result

    def delete(self, container: str, netns: str, interface: str = "eth0", **capabilities: Any) -> None:
        """Call DEL of every plugin in reverse order, each with the final result of ADD."""
        result = self._results.pop((container, interface), None)
        for plugin in reversed(self.conflist["plugins"]):
            configuration = self._configuration(plugin, capabilities, result)
            self._call("DEL", plugin, configuration, container, netns, interface)

    def _configuration(
        self, plugin: Mapping[str, Any], capabilities: Mapping[str, Any], result: Result | None
    ) -> dict[str, Any]:
        """Return what a plugin gets: list-wide keys, the capabilities that it declares, and the result so far."""
        configuration = {**plugin, "name": self.conflist["name"], "cniVersion": self.conflist["cniVersion"]}
        declared = plugin.get("capabilities", {})
        runtime = {name: value for name, value in capabilities.items() if declared.get(name)}
        if runtime:
            configuration["runtimeConfig"] = runtime
        if result is not None:
            configuration["prevResult"] = result
        return configuration

    def _call(
        self,
        verb: str,
        plugin: Mapping[str, Any],
        configuration: Mapping[str, Any],
        container: str,
        netns: str,
        interface: str,
    ) -> bytes:
        program = next(place / plugin["type"] for place in self.path if (place / plugin["type"]).exists())
        environment = {
            **self.environment,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": interface,
            "CNI_ARGS": "",
            "CNI_PATH": ":".join(map(str, self.path)),
        }
        done = subprocess.run(
            [*self.prefix, program],
            input=json.dumps(configuration).encode(),
            env=environment,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise PluginFailed(f"{program.name} {verb}: {(done.stdout or done.stderr).decode()}")
        return done.stdout
