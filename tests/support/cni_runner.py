"""A runner of CNI configuration lists that does what libcni does, for tests to drive plugins as a runtime would.

See containernetworking/cni, libcni/api.go: capabilities by declaration, each plugin with the result so far, a cache of
results for CHECK and DEL, DEL in reverse, GC that first deletes what the cache still has; and containerd/go-cni for
networks that are added side by side.
"""

import base64
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Result = dict[str, Any]

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class PluginFailed(Exception):
    """A plugin ended with an error; ``code`` is the CNI code, 0 if it told none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True, kw_only=True)
class Runner:
    """Runs ``conflist`` with plugins from ``path``; ``cache`` is a directory of its own.

    ``prefix`` is a command that enters a host, ``arguments`` is CNI_ARGS.
    """

    conflist: Mapping[str, Any]
    path: Sequence[Path]
    cache: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))
    prefix: Sequence[str] = ()
    arguments: str = ""

    @property
    def name(self) -> str:
        """The name of the network as the list has it."""
        return str(self.conflist["name"])

    def add(self, container: str, netns: str, interface: str = "eth0", **capabilities: Any) -> Result:
        """Call ADD of every plugin in order, each with the result so far; return the last one's.

        A runtime calls ``delete`` after a failure.
        """
        result: Result | None = None
        for plugin in self.conflist["plugins"]:
            configuration = self._configuration(plugin, capabilities, result)
            result = json.loads(self._call("ADD", plugin, configuration, container, netns, interface))
        assert result is not None
        self._remember(container, netns, interface, capabilities, result)
        return result

    def check(self, container: str, netns: str, interface: str = "eth0") -> None:
        """Call CHECK of every plugin in order with the final result of ADD, which must be in the cache."""
        entry = self._recall(container, interface)
        if entry is None:
            raise PluginFailed(f"no cached result of {container} {interface}")
        for plugin in self.conflist["plugins"]:
            configuration = self._configuration(plugin, entry["capabilityArgs"], entry["result"])
            self._call("CHECK", plugin, configuration, container, netns, interface)

    def delete(self, container: str, netns: str, interface: str = "eth0", **capabilities: Any) -> None:
        """Call DEL of every plugin in reverse order, each with the final result of ADD; stop at the first failure."""
        entry = self._recall(container, interface) or {"capabilityArgs": capabilities, "result": None}
        is_told = self.conflist["cniVersion"] not in ("0.1.0", "0.2.0", "0.3.0", "0.3.1")
        for plugin in reversed(self.conflist["plugins"]):
            result = entry["result"] if is_told else None
            configuration = self._configuration(plugin, entry["capabilityArgs"], result)
            self._call("DEL", plugin, configuration, container, netns, interface)
        self._file(container, interface).unlink(missing_ok=True)

    def status(self) -> None:
        """Call STATUS of every plugin; the first failure is the answer."""
        for plugin in self.conflist["plugins"]:
            self._call("STATUS", plugin, self._configuration(plugin, {}, None), "", "", "")

    def version(self) -> list[str]:
        """Return the versions that all plugins of the list support, as a runtime asks when it loads a list."""
        asked = {"cniVersion": "1.1.0"}
        answers = [
            json.loads(self._call("VERSION", plugin, asked, "dummy", "dummy", "dummy"))
            for plugin in self.conflist["plugins"]
        ]
        first, *others = (answer["supportedVersions"] for answer in answers)
        return [version for version in first if all(version in other for other in others)]

    def collect(self, valid: Iterable[tuple[str, str]]) -> None:
        """Delete what the cache has beyond ``valid``, then call GC of every plugin; all failures are one at the end."""
        kept = set(valid)
        failures: list[str] = []
        for entry in self._cached():
            if (entry["containerId"], entry["ifName"]) not in kept:
                try:
                    self.delete(entry["containerId"], entry["netns"], entry["ifName"])
                except PluginFailed as failure:
                    failures.append(str(failure))
        # A nil slice of Go is null.
        listed = [{"containerID": container, "ifname": interface} for container, interface in sorted(kept)] or None
        for plugin in self.conflist["plugins"]:
            configuration = self._configuration(plugin, {}, None)
            configuration |= {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
            try:
                self._call("GC", plugin, configuration, "", "", "")
            except PluginFailed as failure:
                failures.append(str(failure))
        if failures:
            raise PluginFailed("; ".join(failures))

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
            "CNI_ARGS": self.arguments,
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
            code = json.loads(done.stdout).get("code", 0) if done.stdout else 0
            raise PluginFailed(f"{program.name} {verb}: {(done.stdout or done.stderr).decode()}", code)
        return done.stdout

    # The cache

    def _file(self, container: str, interface: str) -> Path:
        return self.cache / "results" / f"{self.name}-{container}-{interface}"

    def _remember(
        self, container: str, netns: str, interface: str, capabilities: Mapping[str, Any], result: Result
    ) -> None:
        path = self._file(container, interface)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry = {
            "kind": "cniCacheV1",
            "containerId": container,
            "config": base64.b64encode(json.dumps(self.conflist).encode()).decode(),
            "ifName": interface,
            "networkName": self.name,
            "netns": netns,
            "capabilityArgs": dict(capabilities),
            "result": result,
        }
        path.write_text(json.dumps(entry))
        path.chmod(0o600)

    def _recall(self, container: str, interface: str) -> dict[str, Any] | None:
        return _read(self._file(container, interface))

    def _cached(self) -> list[dict[str, Any]]:
        found = [_read(path) for path in sorted((self.cache / "results").glob(f"{self.name}-*"))]
        return [entry for entry in found if entry is not None and entry["networkName"] == self.name]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return entry if isinstance(entry, dict) and entry.get("kind") == "cniCacheV1" else None


def add_in_parallel(runners: Sequence[Runner], container: str, netns: str) -> list[Result]:
    """Add a container to several networks at once, eth0, eth1, ..., as containerd does."""
    with ThreadPoolExecutor(len(runners)) as pool:
        pending = [pool.submit(runner.add, container, netns, f"eth{index}") for index, runner in enumerate(runners)]
        return [future.result() for future in pending]
