"""The only code that touches Linux: rtnetlink, nftables, namespaces, sysctls and host ports.

``kernel.py`` is the way in; ``apply.py`` carries plans out, ``observe.py`` reads what is there. Everything here runs
on one worker thread, never on the event loop. What is ours is known by its marks alone (name and alias of a link,
protocol of a route, the name of the nftables table); nothing else is changed.
"""
