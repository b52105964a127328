"""The core's seals around ``grpc.aio``: the edge between pure values and real connections.

``membership``  what a node holds at the moment: identity, keys, certificate, clock, judge
``svid``        the certificate and its key, as TLS wants them
``status``      the mesh's own errors as gRPC statuses, and back
``connections`` TLS to each instance, one per certificate, and which instance a call goes to
``reply``       what an application may believe of a reply
``exchange``    one sealed call in progress, repeated elsewhere if it was refused
``calls``       the unary call object that an application holds; ``streams`` has the other three
``channel``     a ``grpc.aio.Channel`` to a service, for generated stubs
``inbound``     one call from the other side: admitted, dispatched, its reply sealed
``context``     what a handler sees of it
``lasting``     a listener that outlives what ends gRPC's own
``guard``       holds its port, against other users of the machine
``rolling``     its certificate, replaced while it serves
``server``      a ``grpc.aio.Server``, for generated servicers
"""
