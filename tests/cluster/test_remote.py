"""The agent's TCP door: who gets in by which certificate, what they may do, and what is said to the others."""

import json
import shutil
from pathlib import Path

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.certificates import make_certificates
from tests.support.hosts import netagent, refusal
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

PORT = 7947


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that has certified h2, an operator, a viewer and a host; below ``foreign`` another one."""
    directory = make_certificates(tmp_path_factory.mktemp("pki"), "operator:anna", "viewer:eve", "h1")
    make_certificates(directory, "operator:late", days=-1)
    make_certificates(directory / "foreign", "operator:mallory", "h2=198.18.0.2")
    return directory


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab, pki: Path) -> Lab:
    """h2 serves clients over TCP, h1 has them."""
    lab = make_lab(2, agents=False)
    h2 = lab.host("h2")
    certify(h2, pki)
    h2.agent.launch(options=door())
    for host in lab.hosts[:1]:
        host.agent.launch()
    for host in lab.hosts:
        host.agent.wait_ready()
    return lab


def certify(host: Host, pki: Path, *, days: int = 30) -> None:
    """Put a new certificate of ``host`` where its agent looks for it; its names are h2 and its underlay addresses."""
    make_certificates(pki, f"{host.name}={host.seat.ipv4},{host.seat.ipv6}", days=days)
    put(host, pki / f"{host.name}.pem", pki / f"{host.name}.key", pki / "ca.pem")


def put(host: Host, cert: Path, key: Path, ca: Path) -> None:
    for path, name in ((ca, "ca.pem"), (key, "door.key"), (cert, "door.pem")):
        shutil.copy(path, host.path(f"/etc/netagent/{name}"))


def door(port: int = PORT) -> tuple[str, ...]:
    files = (("--tls-cert", "door.pem"), ("--tls-key", "door.key"), ("--tls-ca", "ca.pem"))
    return ("--listen", f":{port}", *(word for name, file in files for word in (name, f"/etc/netagent/{file}")))


def as_client(pki: Path, name: str, target: str = "198.18.0.2", *, ca: Path | None = None) -> tuple[str, ...]:
    """Return the options by which the command line reaches the agent at ``target`` with the certificate of ``name``."""
    files = ("--tls-ca", ca or pki / "ca.pem", "--tls-cert", pki / f"{name}.pem", "--tls-key", pki / f"{name}.key")
    return ("--host", f"tcp://{target}", *map(str, files))


def test_an_operator_does_on_another_host_what_it_could_do_there(lab: Lab, pki: Path) -> None:
    h1, h2 = lab.hosts
    anna = as_client(pki, "anna")
    netagent(h1, *anna, "run", "-d", "--name", "far", "--", "sleep", "infinity")
    assert "far" in netagent(h2, "ps").stdout
    assert "far" not in netagent(h1, "ps").stdout
    for words in ("operator anna from ipv4:198.18.0.1", "calls Containers/Create"):
        eventually(lambda words=words: words in h2.agent.log.read_text())
    netagent(h1, *anna, "rm", "-f", "far")
    assert "far" not in netagent(h2, "ps", "-a").stdout


def test_a_viewer_sees_everything_and_changes_nothing(lab: Lab, pki: Path) -> None:
    h1, h2 = lab.hosts
    eve = as_client(pki, "eve")
    assert json.loads(netagent(h1, *eve, "info", "--format", "json").stdout)["Name"] == "h2"
    assert "bridge" in netagent(h1, *eve, "network", "ls").stdout
    assert refusal(h1, *eve, "network", "create", "mine") == (
        "eve is a viewer and may not call Networks/Create (use an operator's certificate)"
    )
    assert "mine" not in netagent(h2, "network", "ls").stdout


def test_a_certificate_without_a_role_is_good_for_nothing(lab: Lab, pki: Path) -> None:
    assert refusal(lab.host("h1"), *as_client(pki, "h1"), "ps") == (
        "the certificate of h1 has no role (make one by make-certificates DIRECTORY operator:NAME)"
    )


def test_an_agent_is_reached_by_its_ipv6_address_too(lab: Lab, pki: Path) -> None:
    h1, h2 = lab.hosts
    assert '"h2"' in netagent(h1, *as_client(pki, "eve", f"[{h2.seat.ipv6}]:{PORT}"), "info", "--format", "json").stdout


def test_the_environment_says_where_and_an_option_goes_before_it(lab: Lab, pki: Path) -> None:
    h1 = lab.host("h1")
    env = {
        "NETAGENT_HOST": "tcp://198.18.0.2",
        "NETAGENT_TLS_CA": str(pki / "ca.pem"),
        "NETAGENT_TLS_CERT": str(pki / "eve.pem"),
        "NETAGENT_TLS_KEY": str(pki / "eve.key"),
    }
    words = ("env", *(f"{name}={value}" for name, value in env.items()), "netagent")
    assert '"h2"' in h1.run(*words, "info", "--format", "json").stdout
    assert '"h1"' in h1.run(*words, "--socket", "/run/netagent/agent.sock", "info", "--format", "json").stdout


@pytest.mark.parametrize(
    ("client", "target", "ca", "said"),
    [
        ("mallory", "198.18.0.2", "ca.pem", "has closed the connection: it does not take our certificate"),
        ("late", "198.18.0.2", "ca.pem", "certificate has expired (make one by make-certificates"),
        ("anna", "198.18.0.2", "foreign/ca.pem", "the certificate of the agent at 198.18.0.2:7947 is refused: "),
        ("anna", "198.18.0.1", "ca.pem", "cannot reach the agent at 198.18.0.1:7947: Connection refused"),
        ("anna", "198.18.0.2:2380", "ca.pem", "cannot reach the agent at 198.18.0.2:2380"),
        ("anna", "h9.invalid", "ca.pem", "unknown host h9.invalid: "),
        ("none", "198.18.0.2", "ca.pem", "cannot read "),
    ],
)
def test_who_does_not_get_in_is_told_why(lab: Lab, pki: Path, client: str, target: str, ca: str, said: str) -> None:
    client = f"foreign/{client}" if client == "mallory" else client
    assert said in refusal(lab.host("h1"), *as_client(pki, client, target, ca=pki / ca), "ps")


def test_a_name_that_the_certificate_does_not_have_is_refused(lab: Lab, pki: Path) -> None:
    h1, h2 = lab.hosts
    h2.run("ip", "address", "add", "198.18.0.77/32", "dev", "lo")
    h1.run("ip", "route", "add", "198.18.0.77/32", "via", "198.18.0.2")
    assert refusal(h1, *as_client(pki, "anna", "198.18.0.77"), "ps") == (
        "the certificate of the agent at 198.18.0.77:7947 is not for 198.18.0.77"
        " (use a name or address that it is for, or make one for this too)"
    )


def test_without_a_certificate_nobody_speaks_to_the_agent(lab: Lab, pki: Path) -> None:
    h1 = lab.host("h1")
    assert "no certificate for tcp://198.18.0.2" in refusal(h1, "--host", "tcp://198.18.0.2", "ps")
    assert first_words(h1, "s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes(9))") == "b''"
    anonymous = (
        "import ssl; c = ssl.create_default_context(cafile=sys.argv[1]); c.set_alpn_protocols(['h2']); "
        "s = c.wrap_socket(s, server_hostname='198.18.0.2')"
    )
    assert first_words(h1, anonymous, str(pki / "ca.pem")) == "b''"


def test_tls_before_1_2_is_not_spoken(lab: Lab, pki: Path) -> None:
    words = ["openssl", "s_client", "-connect", "198.18.0.2:7947", "-cipher", "ALL:@SECLEVEL=0"]
    certificate = ["-cert", str(pki / "eve.pem"), "-key", str(pki / "eve.key"), "-CAfile", str(pki / "ca.pem")]
    spoken = [
        version
        for version in ("tls1", "tls1_1", "tls1_2", "tls1_3")
        if "Cipher is ECDHE" in (said := lab.host("h1").run(*words, *certificate, f"-{version}", check=False).stdout)
        or "Cipher is TLS_AES" in said
    ]
    assert spoken == ["tls1_2", "tls1_3"]


def first_words(host: Host, code: str, *arguments: str) -> str:
    """Return what the agent's TCP door says to a stranger, who runs ``code`` with the connection ``s``."""
    connected = "import socket, sys; s = socket.create_connection(('198.18.0.2', 7947)); s.settimeout(30)"
    return host.run("python3", "-c", f"{connected}\n{code}\nprint(s.recv(64))", *arguments).stdout.strip()


@pytest.mark.parametrize(
    "command", [("logs", "x"), ("exec", "x", "--", "id"), ("run", "--", "id"), ("start", "-a", "x")]
)
def test_what_needs_the_hosts_own_files_says_so(lab: Lab, pki: Path, command: tuple[str, ...]) -> None:
    status = 125 if command[0] in ("run", "exec") else 1
    said = refusal(lab.host("h1"), *as_client(pki, "anna"), *command, status=status)
    assert "works on the host itself only (log in there, and leave out --host)" in said


def test_a_renewed_certificate_is_shown_without_a_restart(lab: Lab, pki: Path) -> None:
    h1, h2 = lab.hosts
    eve = as_client(pki, "eve")
    certify(h2, pki, days=-1)
    assert "has expired (renew it there: the agent takes it without a restart)" in refusal(h1, *eve, "ps")
    eventually(lambda: "clients will refuse this agent" in h2.agent.log.read_text())
    make_certificates(pki, "h2=198.18.0.2")
    put(h2, pki / "h2.pem", pki / "anna.key", pki / "ca.pem")
    assert "has expired" in refusal(h1, *eve, "ps")
    eventually(lambda: "the certificate in use stays: " in h2.agent.log.read_text())
    certify(h2, pki)
    netagent(h1, *eve, "ps")


def test_an_agent_without_usable_certificates_does_not_start(lab: Lab, pki: Path) -> None:
    h1 = lab.host("h1")
    h1.agent.stop()
    own = ("netagent", "agent", "--store", lab.layout.store_url)
    assert "needs tls.ca_file: nobody is served there without certificates" in refused(h1, *own, "--listen", ":1")
    assert "cannot read /etc/netagent/" in refused(h1, *own, *door())
    put(h1, pki / "h2.pem", pki / "anna.key", pki / "ca.pem")
    assert "are no certificate and its key" in refused(h1, *own, *door())
    certify(h1, pki)
    assert "cannot listen at 192.0.2.1:7947" in refused(h1, *own, *door(), "--listen", "192.0.2.1")
    h1.agent.start()


def refused(host: Host, *command: str) -> str:
    """Return the one line with which a command that is refused ends, after what it has logged."""
    done = host.run(*command, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


def test_a_crowd_that_says_nothing_keeps_out_no_one_of_this_host_and_others_for_seconds(lab: Lab, pki: Path) -> None:
    h1, h2 = lab.hosts
    code = "import socket,time; s=[socket.create_connection(('198.18.0.2',7947)) for _ in range(300)]; time.sleep(60)"
    crowd = h1.popen("python3", "-c", code)
    try:
        eventually(lambda: h2.run("ss", "-Htn", "sport", f"= :{PORT}").stdout.count("ESTAB") >= 200)
        netagent(h2, "ps", timeout=30)
        eventually(lambda: netagent(h1, *as_client(pki, "eve"), "ps", check=False).returncode == 0)
    finally:
        crowd.kill()
        crowd.wait()
