"""All firewalls of other programs that there are marks for."""

from netagent.coexist.docker import DockerFirewall
from netagent.coexist.firewalld import Firewalld
from netagent.coexist.ufw import Ufw

FIREWALLS = (DockerFirewall(), Firewalld(), Ufw())
