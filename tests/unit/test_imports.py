"""Who may import whom, with the reason: the table of docs/architecture.md, enforced."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "netagent"

LAYERS = {
    "errors": 0,
    "failpoint": 0,
    "unprivileged": 0,
    "certificates": 1,
    "model": 1,
    "plan": 2,
    "ipam": 2,
    "drivers": 2,
    "firewall": 2,
    "dns.message": 2,
    "dns.control": 2,
    "dns.zone": 2,
    "dns.answer": 2,
    "dns.resolv": 2,
    "dns.reply": 2,
    "reconcile.ports": 3,
    "kernel": 4,
    "store": 4,
    "runtime": 4,
    "coexist": 4,
    "dns.channel": 4,
    "dns.client": 4,
    "loopback.control": 2,
    "loopback.client": 4,
    "loopback.forwarder": 7,
    "loopback.__main__": 7,
    "reconcile": 5,
    "services": 6,
    "dns.server": 7,
    "dns.upstream": 7,
    "dns.__main__": 7,
    "api": 7,
    "cli": 7,
    "daemon": 8,
    "lab": 8,
}
"""A module may import modules of its own package and of lower layers; siblings only as ``SIBLINGS`` says."""

SIBLINGS = {
    ("plan", "drivers"): "plan.render asks the drivers; they know only plan.desired and plan.mtu",
    ("plan", "firewall"): "plan.render asks for the elements; firewall knows only plan.desired",
    ("drivers", "plan"): "drivers answer in the words of plan.desired",
    ("firewall", "plan"): "rules are values of plan.desired",
}

UPWARD = {
    ("cli", "daemon"): "only by the lazy import of `netagent agent`",
    ("cli", "lab"): "only by the lazy import of `netagent lab`",
    ("__main__", "cli"): "the entry point",
    ("cli", "runtime"): "stdio, exec and logs pass between the container's monitor and the command line alone",
}

PURE = (
    "model",
    "plan",
    "ipam",
    "drivers",
    "firewall",
    "dns.message",
    "dns.control",
    "dns.zone",
    "dns.answer",
    "dns.resolv",
    "dns.reply",
)
IMPURE_MODULES = {"asyncio", "socket", "os", "time", "random", "secrets", "logging", "subprocess", "grpc", "pyroute2"}
ONE_HOME = {
    "pyroute2": ("kernel",),
    "ctypes": ("kernel", "runtime", "unprivileged"),
    "sqlite3": ("store",),
    "click": ("cli", "lab", "__main__"),
    "rich": ("cli", "lab"),
    "netaddr": ("ipam", "model"),
}
"""Each of these libraries is an implementation detail of the packages named."""


@functools.cache
def _modules() -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple((module, frozenset(_imports(tree))) for module, tree in _parsed())


def _parsed() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).with_suffix("")
        if relative.parts[0] == "v1" or "proto" in relative.parts:
            continue
        yield ".".join(relative.parts), ast.parse(path.read_text())


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(module: str) -> tuple[str, int] | None:
    for depth in (2, 1):
        name = ".".join(module.split(".")[:depth])
        if name in LAYERS:
            return name, LAYERS[name]
    return None


def _forbidden(module: str, target: str) -> str | None:
    own, other = _layer(module), _layer(target)
    if own is None or other is None:
        return None
    own_package, other_package = own[0].split(".")[0], other[0].split(".")[0]
    allowed = (own_package, other_package) in SIBLINGS or (own_package, other_package) in UPWARD
    if own_package == other_package or own[1] > other[1] or allowed:
        return None
    return f"{module} (layer {own[0]}) imports {target} (layer {other[0]})"


def test_no_module_imports_upward() -> None:
    wrong = [
        reason
        for module, imports in _modules()
        for target in imports
        if target.startswith("netagent.") and (reason := _forbidden(module, target.removeprefix("netagent.")))
    ]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_an_upward_import_would_be_seen() -> None:
    assert _forbidden("plan.diff", "services.networks") is not None
    assert _forbidden("kernel.apply", "store.journal") is not None
    assert _forbidden("services.networks", "plan.diff") is None


@pytest.mark.parametrize("package", PURE)
def test_deciding_packages_touch_nothing_outside(package: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, imports in _modules()
        if module == package or module.startswith(f"{package}.")
        for target in imports
        if target.split(".")[0] in IMPURE_MODULES
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", ONE_HOME)
def test_each_library_has_one_home(library: str) -> None:
    wrong = [
        f"{module} imports {library}"
        for module, imports in _modules()
        if module.split(".")[0] not in ONE_HOME[library]
        for target in imports
        if target.split(".")[0] == library
    ]
    assert not wrong, "\n".join(sorted(set(wrong)))
