"""What a supervisor asks a service about itself, over a unix socket that is open to its own user alone.

``answering``  the service's side: one line to whoever connects, ``ready`` or why it is not
``__main__``   the supervisor's: ``python -m services.probe ready|alive SOCKET``, for a kubelet's exec probes

A kubelet speaks plain HTTP or gRPC over the network, or runs a command. The mesh has no plain port that is
not needed, so it is a command. Who answers at all is alive: what a service waits for is no reason to kill it.
"""
