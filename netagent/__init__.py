"""netagent: multi-host container networking without Swarm or Kubernetes."""

__version__ = "0.1.0"
