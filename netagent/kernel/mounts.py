"""Whether mounts that another process makes are seen here: namespaces with a name are such (mount_namespaces(7)).

Runtimes keep a container's network namespace by a mount below /run/netns. An agent in a mount namespace of its own,
as in a container, sees an empty file there, unless what is mounted is handed on to it.
"""

import os
from pathlib import Path, PurePosixPath


def are_mounts_hidden(caller: int, path: str) -> bool:
    """Tell whether what process ``caller`` mounts at ``path`` certainly does not come here.

    0 stands for a process of another pid namespace, of which nothing can be learnt.
    """
    if not caller:
        return not groups_at(_own(), os.path.realpath(path))
    try:
        if Path(f"/proc/{caller}/ns/mnt").stat().st_ino == Path("/proc/self/ns/mnt").stat().st_ino:
            return False
        theirs = Path(f"/proc/{caller}/mountinfo").read_text()
    except OSError:
        return False
    return not arrives(theirs, _own(), os.path.realpath(path))


def _own() -> str:
    """Read our table: a line for each namespace that has a name."""
    return Path("/proc/self/mountinfo").read_text()


def arrives(theirs: str, own: str, path: str) -> bool:
    """Tell from two tables of mounts (mountinfo, proc(5)) whether what is mounted at ``path`` there may come here.

    Whoever follows somebody else's mounts may follow those of others through them, which cannot be seen from here.
    """
    there, here = groups_at(theirs, path), groups_at(own, path)
    if "shared" not in there:
        return False
    return bool(here.keys() & {"master", "propagate_from"}) or here.get("shared") == there["shared"]


def groups_at(mountinfo: str, path: str) -> dict[str, str]:
    """Return the kinds and numbers of the peer groups of the mount that ``path`` lies on."""
    best, found = -1, dict[str, str]()
    for line in mountinfo.splitlines():
        fields = line.split()
        point = PurePosixPath(fields[4].encode().decode("unicode_escape"))
        # The later one of two at a place lies on top.
        if PurePosixPath(path).is_relative_to(point) and len(point.parts) >= best:
            best = len(point.parts)
            tags = fields[6 : fields.index("-", 6)]
            found = {kind: number for kind, _, number in (tag.partition(":") for tag in tags) if number}
    return found
