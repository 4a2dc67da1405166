"""The sandboxes that one pass works in: each opened at most once at a time, its identity checked every time."""

from collections import OrderedDict
from types import TracebackType

from netagent.errors import InvalidRequest, NotFound
from netagent.kernel import netns
from netagent.kernel.netns import Namespace
from netagent.kernel.rtnl import Rtnl

_OPEN_AT_ONCE = 64
"""Two descriptors each; a start with a thousand containers must stay well below the usual limit of 1,024."""


class Sandbox:
    """An open container namespace and the route netlink in it."""

    def __init__(self, namespace: Namespace, home: Namespace) -> None:
        self.namespace = namespace
        self.rtnl = netns.call_inside(namespace, home, Rtnl)

    def close(self) -> None:
        """Close both descriptors."""
        self.rtnl.close()
        self.namespace.close()


class Sandboxes:
    """Opens sandboxes by path for one pass. A path stands for one namespace throughout, however often it is opened."""

    def __init__(self, home: Namespace) -> None:
        self._home = home
        self._inodes: dict[str, int] = {}
        self._open: OrderedDict[str, Sandbox] = OrderedDict()

    def __enter__(self) -> "Sandboxes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sandbox in self._open.values():
            sandbox.close()
        self._open.clear()

    def open(self, path: str, inode: int = 0) -> Sandbox:
        """Return the sandbox at ``path``, which must have ``inode`` unless that is 0.

        Raises NotFound if it is gone or another namespace is there by now, InvalidRequest if it is no container's.
        """
        known = self._open.get(path)
        if known is None:
            known = self._open_anew(path)
        self._open.move_to_end(path)
        if inode and known.namespace.inode != inode:
            raise _stranger(path, known.namespace.inode, inode)
        return known

    def _open_anew(self, path: str) -> Sandbox:
        namespace = open_sandbox(path, self._home)
        try:
            seen = self._inodes.setdefault(path, namespace.inode)
            if seen != namespace.inode:
                raise _stranger(path, namespace.inode, seen)
            self._open[path] = Sandbox(namespace, self._home)
        except BaseException:
            namespace.close()
            raise
        if len(self._open) > _OPEN_AT_ONCE:
            self._open.popitem(last=False)[1].close()
        return self._open[path]


def _stranger(path: str, inode: int, expected: int) -> NotFound:
    return NotFound(f"network namespace {path} is another one now (inode {inode}, was {expected})", netns=path)


def open_sandbox(path: str, home: Namespace) -> Namespace:
    """Open the namespace at ``path`` and make sure that it is not the host's own."""
    namespace = netns.open_namespace(path)
    if namespace.inode == home.inode:
        namespace.close()
        raise InvalidRequest(
            f"{path} is the network namespace of the host itself",
            hint="a container needs a namespace of its own",
            netns=path,
        )
    return namespace
