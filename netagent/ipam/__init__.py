"""Who gets which address: subnets for networks, blocks for hosts, addresses for endpoints. Pure decisions."""
