"""A cluster of hosts on one machine: for the tests, the demo, and for trying things out.

A host of the lab is a network namespace, where its interfaces, routes and rules live, plus a mount and a UTS
namespace, where its files and its name live. Namespaces share the kernel, the process table and the cgroups of the
machine: a lab shows what netagent does to packets, not how hosts differ in kernels.

::

        nalab-h1            nalab-h2            nalab-h3           nalab-e1
      agent, containers   agent, containers   agent, containers      etcd
            eth0                eth0                eth0              eth0
        198.18.0.1          198.18.0.2          198.18.0.3        198.18.0.201
             |                   |                   |                 |
        -----+-------------------+-------- br0 ------+-----------------+----
                                        nalab-sw

What a lab has started is written down in ``/run/netagent-lab/<name>/lab.json`` before it begins its work, so that
``down`` finds it whatever became of the ``up``.
"""
