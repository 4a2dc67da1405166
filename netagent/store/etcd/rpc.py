"""The methods of etcd that netagent calls, by path and message types."""

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from google.protobuf.message import Message

from netagent.store.etcd.proto import etcd_pb2 as pb


class _AnyResponse(Protocol):
    @property
    def header(self) -> pb.ResponseHeader: ...

    @classmethod
    def FromString(cls, s: bytes) -> Self: ...  # noqa: N802  # protobuf's name


Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=_AnyResponse)


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Request, Response]):
    """A method with one request and one response."""

    path: str
    request: type[Request]
    response: type[Response]


RANGE = Rpc("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
TXN = Rpc("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
LEASE_GRANT = Rpc("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
# A stream by its declaration. With one request and one response it looks the same on the wire as a simple call, which
# has a deadline, moves to another endpoint and takes a new token like any other.
LEASE_KEEP_ALIVE = Rpc("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
AUTHENTICATE = Rpc("/etcdserverpb.Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse)
