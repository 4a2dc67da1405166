from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.runtime.kernel_options import parse_capabilities, parse_sysctls


def test_settings_of_the_containers_own_namespaces_are_taken() -> None:
    texts = ("net.ipv4.ip_local_port_range=1024 2000", "net/core/somaxconn=9", "kernel.sem=1", "fs.mqueue.msg_max=5")
    assert dict(parse_sysctls((*texts, "kernel.sem=2"), own_network=True)) == {
        "net.ipv4.ip_local_port_range": "1024 2000",
        "net.core.somaxconn": "9",
        "kernel.sem": "2",
        "fs.mqueue.msg_max": "5",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("net.ipv4.ip_forward", "invalid sysctl 'net.ipv4.ip_forward'"),
        ("net.a/../../kernel/panic=1", "invalid sysctl "),
        ("net..x=1", "invalid sysctl "),
        ("net.x=", "invalid sysctl "),
        ("net.x=a\nb", "invalid sysctl "),
        ("=1", "invalid sysctl "),
        ("kernel.panic=1", "sysctl 'kernel.panic=1' is not allowed"),
        ("vm.swappiness=1", "sysctl 'vm.swappiness=1' is not allowed"),
    ],
)
def test_all_others_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_sysctls((text,), own_network=True)
    assert refused.value.message.startswith(said)


def test_the_hosts_own_network_is_not_changed() -> None:
    with pytest.raises(InvalidRequest, match="not allowed in host network namespace"):
        parse_sysctls(("net.core.somaxconn=9",), own_network=False)
    assert parse_sysctls(("kernel.sem=1",), own_network=False)


@given(st.text(alphabet="net.kerlfsmqu/*:=1 \n-", max_size=24))
def test_no_text_leads_out_of_a_containers_settings(text: str) -> None:
    with suppress(InvalidRequest):
        for name, value in parse_sysctls((text,), own_network=True):
            assert name.startswith(("net.", "fs.mqueue.", "kernel."))
            assert ".." not in name
            assert value.isprintable()


def test_capabilities_have_their_prefix_or_not_in_any_case() -> None:
    assert parse_capabilities(("net_admin", "CAP_NET_ADMIN", "all"), what="CapAdd") == ("CAP_NET_ADMIN", "ALL")
    with pytest.raises(InvalidRequest, match="invalid CapDrop: unknown capability: 'CAP_ALL'"):
        parse_capabilities(("CAP_ALL",), what="CapDrop")
