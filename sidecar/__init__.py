"""The sidecar: the embedded library over raw bytes, beside an application in any language.

``relay``     carries one call from one side to the other, whole
``outbound``  takes the application's calls and makes them in the mesh
``inbound``   takes the mesh's calls and makes them to the application
``sidecar``   the three together, for as long as the process lives
``serve``     a sidecar as a process of its own
``app_health``  whether the application is well, by its own word
``health``    whether it is in the mesh, and ready, for whoever watches the process
``drain``     tells a sidecar that its end is near
``run``       a sidecar and its application, started and ended together

It adds nothing to the protocol and decides nothing: identity, seal and policy are the node's.
"""
