"""What the mesh costs: direct, embedded, sidecar and a pair of Envoys, side by side from one run.

    figures    the arithmetic: percentiles, medians over rounds, what a variant adds to direct
    report     figures as a table for people and as JSON
    process    one child process: its lines, its CPU time, its memory, its end
    echo, load the server and the client, the same programs in every variant
    direct, envoy, meshed      how each variant is laid out; ``meshed`` has a trust domain of its own
    rounds     who is measured when
    counted                    Python functions called for each call, in one process
    decision, joins            the rows that need no traffic between services
    jailed, hostile            a Lua service beside the same in Python, and beside fifty hostile ones
    flood, flooded             other callers of each listener while it is attacked
    attacks, attacker          what attackers send, and the process that sends it
    revocation, held           how soon a revoked instance is dropped, and streams to it end
    push, watching             a change of policy, and a thousand nodes that wait for it
    replicas                   a change at one of two auths on PostgreSQL, at the nodes of the other
    renewals                   joins, renewals, and five hundred nodes that are back at once

``python -m bench`` and each of ``bench.jailed``, ``bench.push``, ``bench.flood`` run on loopback, on free
ports and in a temporary directory that goes with it.
The yardstick is an ordinary Envoy configuration, neither crippled nor tuned; nothing here asserts a timing.
"""
