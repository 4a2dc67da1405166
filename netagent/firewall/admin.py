"""The administrator's own chains: a table of its own that is seen before ours and that netagent never writes to again.

They are made empty where the table ``inet netagent-admin`` is missing. A drop in them is final. An accept only ends
them: what our own chains refuse stays refused. Priority -10 is before ``filter`` (0), where our chains, Docker's and
ufw's are, and after every translation of the destination, so a published port is seen as ``ct original proto-dst``.
"""

from netagent.plan.desired import Chain

CHAINS = tuple(
    Chain(name=hook, hook=f"type filter hook {hook} priority -10; policy accept;", rules=())
    for hook in ("input", "forward", "output")
)
