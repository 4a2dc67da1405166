"""``netagent agent``: the agent itself, in the foreground."""

import gc

import click

_FIREWALLS = ("nftables", "iptables")
_KEYS = {"tls_cert": "tls.cert_file", "tls_key": "tls.key_file", "tls_ca": "tls.ca_file"}
"""Options whose key in the configuration is not their name."""
_LOG_LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.option(
    "--config", "config_path", type=click.Path(), help="Configuration file.  [default: /etc/netagent/agent.toml]"
)
@click.option("--store", help="etcd://HOST:PORT,... to join a cluster; without it, one host from an embedded store.")
@click.option("--state-dir", type=click.Path(), help="Where state is kept.  [default: /var/lib/netagent]")
@click.option("--run-dir", type=click.Path(), help="Where sockets and containers are.  [default: /run/netagent]")
@click.option("--host-name", help="Name of this host in the cluster.  [default: the machine's]")
@click.option("--host-ip", help="This host's address for the others.  [default: that of the default route]")
@click.option("--listen", metavar="[ADDRESS][:PORT]", help="Serve clients with certificates over TCP.  [default: none]")
@click.option("--tls-cert", type=click.Path(), help="The agent's certificate for them (PEM).")
@click.option("--tls-key", type=click.Path(), help="Its key.")
@click.option("--tls-ca", type=click.Path(), help="The authority of clients' certificates.")
@click.option("--firewall", type=click.Choice(_FIREWALLS), help="What to program.  [default: nftables]")
@click.option("--log-level", type=click.Choice(_LOG_LEVELS), help="How much to log.  [default: info]")
@click.option("--withdraw", is_flag=True, help="Take netagent's marks out of other firewalls, and end.")
def agent(config_path: str | None, *, withdraw: bool, **options: str | None) -> None:
    """Run the agent of this host until SIGTERM. The network it has made goes on without it."""
    if withdraw:
        from netagent.daemon.withdraw import withdraw_marks

        for line in withdraw_marks():
            click.echo(line)
        return
    # Hardly anything that is loaded at the start is garbage: the collector has its turn when the agent serves.
    gc.disable()
    from netagent.daemon.main import main

    overrides = {_KEYS.get(name, name): value for name, value in options.items() if value is not None}
    main(config_path=config_path, overrides=overrides)
