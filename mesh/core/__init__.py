"""The pure core of the mesh: bytes and ``now`` in, values out.

Nothing here opens a socket or file, reads a clock, or knows of gRPC. Read it in this order:

``names``     what may be a name, parsed once
``errors``    the one tree of errors
``keys``      secrets, and how each key is derived from the one above it
``wire``      bytes of header, frame and refusal, and their bounds
``metadata``  which metadata belongs to the application, and its digest
``replay``    the window of sequence numbers
``seal``      one session: sealing and opening a call, its frames and its end
``sender``    keys and sequence numbers of a node that calls
``receiver``  everything that is checked before a call is dispatched, in order
``join``      the handshake that turns a token into an identity
``patterns``  what a rule may say of names, and which names it means
``document``  strict reading of what people write
``policy``    the policy as data; ``matcher`` the policy as decisions; ``builtin`` the mesh's own rules
``observed``  recorded decisions; ``retrial`` judges them again, ``suggest`` makes a policy of them
"""
