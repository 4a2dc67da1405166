"""Links: the variables that Docker's manual shows, and what is refused."""

from netagent.model.address import parse_address
from netagent.model.endpoint import Endpoint, EndpointAddress
from netagent.model.ids import ContainerId, EndpointId, NetworkId
from netagent.model.resolver import Link
from netagent.services.links import Linked, render_environment


def linked(*ports: tuple[int, str], address: str = "172.17.0.5", alias: str = "db") -> Linked:
    endpoint = Endpoint(
        id=EndpointId("e" * 64),
        network_id=NetworkId("n" * 64),
        container_id=ContainerId("c" * 64),
        container_name="postgres",
        interface="eth0",
        sandbox="/run/netns/x",
        addresses=(EndpointAddress(address=parse_address(address)),),
        mac="02:00:00:00:00:01",
    )
    return Linked(
        link=Link(target="postgres", alias=alias), endpoint=endpoint, ports=ports, environment=(("PGUSER", "me"),)
    )


def test_one_port_gives_the_variables_of_dockers_manual() -> None:
    assert dict(render_environment("web", linked((5432, "tcp")))) == {
        "DB_NAME": "/web/db",
        "DB_ENV_PGUSER": "me",
        "DB_PORT": "tcp://172.17.0.5:5432",
        "DB_PORT_5432_TCP": "tcp://172.17.0.5:5432",
        "DB_PORT_5432_TCP_ADDR": "172.17.0.5",
        "DB_PORT_5432_TCP_PORT": "5432",
        "DB_PORT_5432_TCP_PROTO": "tcp",
    }


def test_consecutive_ports_are_told_as_a_range_too() -> None:
    variables = dict(render_environment("web", linked((80, "tcp"), (81, "tcp"), (82, "tcp"), (82, "udp"))))
    assert variables["DB_PORT_80_TCP_START"] == "tcp://172.17.0.5:80"
    assert variables["DB_PORT_80_TCP_END"] == "tcp://172.17.0.5:82"
    assert (variables["DB_PORT_80_TCP_PORT_START"], variables["DB_PORT_80_TCP_PORT_END"]) == ("80", "82")
    assert variables["DB_PORT_82_UDP"] == "udp://172.17.0.5:82"
    assert variables["DB_PORT"] == "tcp://172.17.0.5:80"


def test_a_name_of_a_variable_has_no_dashes_and_an_ipv6_address_has_brackets() -> None:
    variables = dict(render_environment("web", linked((80, "tcp"), address="fd00::5", alias="my-db")))
    assert variables["MY_DB_PORT_80_TCP"] == "tcp://[fd00::5]:80"
    assert variables["MY_DB_PORT_80_TCP_ADDR"] == "fd00::5"


def test_a_container_that_serves_nothing_has_a_name_and_an_environment() -> None:
    assert dict(render_environment("web", linked())) == {"DB_NAME": "/web/db", "DB_ENV_PGUSER": "me"}
