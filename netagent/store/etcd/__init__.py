"""The cluster store: our own narrow etcd client on grpc.aio.

No client on PyPI resumes a watch without loss, ends every call in bounded time and resolves a lost reply. Bottom to
top: ``access`` (where and how), ``rpc``, ``codec``, ``client`` (one call, bounded, on some endpoint), ``lease``,
``transactor`` (writes that happen once), ``stream``, ``watch``, ``store``.
"""
