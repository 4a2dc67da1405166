"""A container image for the runtimes of a lab, made from this machine's busybox: a lab has no registry to pull from.

The format is that of ``docker save``, which containerd, Podman and Docker all read: a tar of layers, their
configuration (image-spec, config.md) and ``manifest.json``.
"""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

from netagent.errors import EnvironmentProblem
from netagent.lab.command import search_path

IMAGE = "localhost/busybox:latest"
"""The image's name; ``localhost`` keeps runtimes from asking a registry."""

_DIRECTORIES = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var")
_APPLETS = ("cat", "echo", "hostname", "httpd", "ip", "ls", "nc", "nslookup", "ping", "sh", "sleep", "wget")
_ARCHITECTURE = "amd64"


def write_image(path: Path) -> None:
    """Write the image's archive to ``path``; EnvironmentProblem without a static busybox."""
    found = shutil.which("busybox", path=search_path())
    if found is None:
        raise EnvironmentProblem("busybox is not on this machine", hint="on Debian: apt-get install busybox-static")
    layer = _layer(Path(found).read_bytes())
    configuration = json.dumps(
        {
            "architecture": _ARCHITECTURE,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000000"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for entry, content in ((name, configuration), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, entry, content)


def _layer(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in _DIRECTORIES:
            _add(archive, directory, kind=tarfile.DIRTYPE)
        _add(archive, "bin/busybox", busybox)
        for applet in _APPLETS:
            _add(archive, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = kind, target, 0o755, len(content)
    archive.addfile(entry, io.BytesIO(content))
