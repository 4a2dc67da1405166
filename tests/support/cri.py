"""Pod sandboxes by the Container Runtime Interface, as the kubelet makes them, with a few calls of its own proto."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

_PROTO = Path(__file__).parent / "cri.proto"
_SERVICE = "/runtime.v1.RuntimeService/"


class Cri:
    """A runtime's CRI at a unix socket."""

    def __init__(self, channel: grpc.Channel, descriptors: Path) -> None:
        self._channel = channel
        self._pool = _pool(descriptors)

    def run_sandbox(
        self,
        name: str,
        namespace: str = "default",
        *,
        ports: dict[int, int] | None = None,
        annotations: dict[str, str] | None = None,
        cgroup: str = "",
    ) -> str:
        """Make a pod's sandbox; ``ports`` lead from the host's to the pod's. Return its id."""
        config = {
            "metadata": {"name": name, "uid": f"{namespace}-{name}", "namespace": namespace},
            "hostname": name,
            "log_directory": "/run/pods",
            "port_mappings": [{"host_port": host, "container_port": inside} for host, inside in (ports or {}).items()],
            "annotations": annotations or {},
            "linux": {"cgroup_parent": cgroup},
        }
        return str(self._call("RunPodSandbox", config=config).pod_sandbox_id)

    def address_of(self, sandbox: str) -> str:
        """Return the address that the runtime has for a sandbox."""
        return str(self._call("PodSandboxStatus", pod_sandbox_id=sandbox).status.network.ip)

    def stop_sandbox(self, sandbox: str) -> None:
        """Take a sandbox off the network."""
        self._call("StopPodSandbox", pod_sandbox_id=sandbox)

    def remove_sandbox(self, sandbox: str) -> None:
        """Remove a sandbox."""
        self._call("RemovePodSandbox", pod_sandbox_id=sandbox)

    def _call(self, verb: str, **fields: Any) -> Any:
        request, response = (
            message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"runtime.v1.{verb}{kind}"))
            for kind in ("Request", "Response")
        )
        call = self._channel.unary_unary(
            _SERVICE + verb, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        return call(request(**fields), timeout=120)


@contextmanager
def connected(socket: Path, directory: Path) -> Iterator[Cri]:
    """Yield a connection to the CRI at ``socket``; ``directory`` is for what is generated."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        yield Cri(channel, directory / "cri.binpb")


def _pool(descriptors: Path) -> descriptor_pool.DescriptorPool:
    status = protoc.main(["protoc", f"-I{_PROTO.parent}", f"--descriptor_set_out={descriptors}", _PROTO.name])
    assert status == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        pool.Add(file)
    return pool
