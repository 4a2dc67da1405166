"""Network drivers: how the hosts of a network reach each other, as values. One file each; none touches the kernel."""

from netagent.drivers.bridge import BridgeDriver
from netagent.drivers.driver import Driver
from netagent.drivers.gre import GreDriver
from netagent.drivers.route import RouteDriver
from netagent.drivers.vxlan import VxlanDriver
from netagent.errors import InvalidRequest

DRIVERS: dict[str, Driver] = {
    driver.name: driver for driver in (BridgeDriver(), VxlanDriver(), RouteDriver(), GreDriver())
}
"""The drivers that `network create --driver` takes, by name."""


def driver_named(name: str) -> Driver:
    """Return the driver called ``name``, or refuse in Docker's words."""
    try:
        return DRIVERS[name]
    except KeyError:
        raise InvalidRequest(f'plugin "{name}" not found', hint=f"drivers are {', '.join(DRIVERS)}") from None
