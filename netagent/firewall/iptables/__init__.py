"""The same promises as rules of iptables, ip6tables and ebtables and as ipsets, for hosts that run no nftables.

Every element of a set of ``firewall.ruleset`` becomes rules or members of ipsets, by one function a set; the frames
around them, chains named ``NETAGENT-…``, are constant. One file a promise, as one directory up.

An accept of nft's ends our own chain only. Here the same word is RETURN: what comes out of our chains goes on to the
rules of others and to the policy. What forbids stands in the tables ``raw`` and ``mangle``: an ACCEPT in ``filter``,
where others put theirs before ours as they please (Docker, and our own marks for Docker), cannot go past it.
"""
