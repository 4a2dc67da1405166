"""The agent is killed at every crash point of a verb; after a restart nothing is leaked, lost or doubled.

Which points there are is not written anywhere: each verb is run once while the agent notes what it reaches, then once
per point with a kill there. What the code can reach is read from the code. The verbs are spread over the files
``tests/cluster/test_crash_*.py``, which may run in several processes: each notes what it has reached in a directory of
the whole run, and the one that ends last compares. So a new step comes with its crash test or not at all.
"""

import ast
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from netagent.kernel import kernel
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.store import keys
from tests.support.hosts import dump, netagent, run, same
from tests.support.lab import MakeLab, eventually

PACKAGE = Path(__file__).parents[2] / "netagent"
FILES = frozenset(
    path.stem
    for path in (Path(__file__).parents[1] / "cluster").glob("test_crash_*.py")
    if "reached.missing()" in path.read_text()
)
"""Those that note what they reach."""
POINTS = "/run/failpoints"
SANDBOX = "/run/netns/crash"
_LOOKS = 6
"""So many looks at the trace find the same when nothing is being done any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """``act`` is killed somewhere; ``prepare`` runs before it, ``settle`` must always bring back the beginning."""

    act: Callable[[Host], object]
    prepare: Callable[[Host], object] = lambda host: None
    settle: Callable[[Host], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The crash points that a file's verbs have reached, and those of the other files that have ended."""

    own: set[str]
    directory: Path
    file: str

    def missing(self) -> set[str]:
        """Return the points of the code that no verb has reached, none as long as other files go on."""
        fresh = self.directory / f"{self.file}.fresh"
        fresh.write_text("\n".join(self.own))
        fresh.rename(self.directory / self.file)
        ended = {path.name: path for path in self.directory.iterdir() if not path.suffix}
        if not ended.keys() >= FILES:
            return set()
        return set(names_in_code()) - {name for path in ended.values() for name in path.read_text().split()}


@pytest.fixture(scope="module")
def reached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reached:
    """What this module's verbs reach."""
    base = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each of its processes a directory of its own below that of the run; scripts/test runs it twice.
    base = base.parent if hasattr(request.config, "workerinput") else base
    directory = Path(os.environ.get("NETAGENT_TEST_RUN", base)) / "crash-points"
    directory.mkdir(exist_ok=True)
    return Reached(own=set(), directory=directory, file=request.path.stem)


@pytest.fixture(scope="module")
def crash_lab(make_lab: MakeLab) -> Lab:
    """One host whose agent counts crash points, with a network of its own and one across hosts that is in use."""
    lab = make_lab(hosts=1)
    (host,) = lab.hosts
    host.agent.stop()
    host.path("/etc/netagent/agent.toml").write_text("docker = true\n")
    start_agent(host)
    netagent(host, "network", "create", "--subnet", "10.55.0.0/24", "app")
    netagent(host, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    host.run("ip", "netns", "add", "crash")
    for network in ("app", "staticnet", "bridge"):
        run(host, f"keeper-{network}", "--network", network)
    # Told after the answer; that of the network on this host alone is in the agent's own store.
    eventually(lambda: keys.ENDPOINTS in _store(lab))
    return lab


def start_agent(host: Host) -> None:
    """Start the agent so that it counts crash points."""
    host.run("mkdir", "-p", POINTS)
    host.agent.start(env={"NETAGENT_FAILPOINTS": POINTS})


def arm(host: Host, number: int) -> None:
    """Let the agent die at the ``number``-th crash point from now on."""
    script = f"cd {POINTS}; rm -f trace; echo {number} > arming; mv arming armed"
    host.run("sh", "-c", script)


def disarm(host: Host) -> list[str]:
    """Let it die no more; return the crash points that it has reached since ``arm``."""
    return host.run("sh", "-c", f"cd {POINTS}; rm -f armed; cat trace 2>/dev/null || true").stdout.split()


def _trace_at_rest(host: Host) -> list[str]:
    """Let the agent die no more once it has finished what comes after its answer; return what it has reached."""
    lengths = [0] * _LOOKS

    def is_at_rest() -> bool:
        lengths.append(len(host.run("sh", "-c", f"cat {POINTS}/trace 2>/dev/null || true").stdout))
        return lengths[-1] == lengths[-_LOOKS]

    eventually(is_at_rest)
    return disarm(host)


def _store(lab: Lab) -> str:
    etcd = lab.etcd[0]
    lines = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", "/netagent/v1/").stdout.splitlines()
    pairs = dict(zip(lines[::2], lines[1::2], strict=True))
    return "\n".join(
        f"{key} {value}" for key, value in pairs.items() if "/live/" not in key and "generation" not in key
    )


def kill_at_every_point(lab: Lab, reached: Reached, name: str, verb: Verb) -> None:
    """Run ``verb`` once without a kill, which tells the points there are, and once with a kill at each of them."""
    (host,) = lab.hosts
    disarm(host)
    if not host.agent.running:
        start_agent(host)
    before, stored = dump(host), _store(lab)

    def as_before() -> bool:
        assert _store(lab) == stored
        return same(host, before)

    verb.prepare(host)
    arm(host, 1_000_000)
    verb.act(host)
    points = _trace_at_rest(host)
    reached.own.update(points)
    assert points, "this verb reaches no crash point"
    verb.settle(host)
    eventually(as_before)
    for number in range(1, len(points) + 1):
        verb.prepare(host)
        arm(host, number)
        verb.act(host)
        where = f"{name}: killed at point {number} of {len(points)}: {points[number - 1]}"
        disarm(host)
        if host.agent.running:
            # What goes on after the answer (the store's picture, deletions in the background) may come out shorter.
            host.agent.kill()
        start_agent(host)
        verb.settle(host)
        try:
            eventually(as_before)
        except AssertionError as error:
            error.add_note(where)
            raise


def names_in_code() -> Iterator[str]:
    """Yield every crash point that the code can reach, f-strings with their parts filled in from where they come."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "reach":
                (argument,) = node.args
                if isinstance(argument, ast.Constant):
                    yield argument.value
    yield from kernel.failpoints()
    journal = "".join((PACKAGE / "store" / name).read_text() for name in ("journal.py", "docker.py"))
    for name in re.findall(r'self\._transaction\("(\w+)"\)', journal):
        yield from (f"journal.{name}.before", f"journal.{name}.after")
    runner = (PACKAGE / "runtime" / "runc.py").read_text()
    for verb in re.findall(r'self\._call\("(\w+)"', runner):
        yield from (f"runtime.{verb}.before", f"runtime.{verb}.after")


def run_container(host: Host) -> None:
    """Start the container ``crash`` in two networks."""
    options = ("--network", "staticnet", "--network", "app", "--ip", "192.168.0.9", "-p", "4001:80")
    netagent(host, "run", "-d", "--name", "crash", *options, "--", "sleep", "infinity", check=False)


def remove_container(host: Host) -> None:
    """Remove the container ``crash``, whether it is there or not."""
    result = netagent(host, "rm", "-f", "crash", check=False)
    assert result.returncode == 0 or "No such container" in result.stderr, result.stderr
