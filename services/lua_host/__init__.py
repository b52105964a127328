"""The Lua host: services written in Lua, each in jailed processes of its own, as members of the mesh.

A service's directory, read and judged:
``manifest``    what it says it is, with its ``limits``; ``library`` what it may be allowed of Lua's
``protos``      its messages, from ``proto_files``; ``bundle`` all of it, cross-checked
``problems``    what is wrong, and where (``places``, ``strict_toml``)

A service, running:
``protocol``    what host and worker may say to each other, and when; ``wire`` the frames on its socket
``worker``      one jailed process, from its start to its end; ``pool`` warm ones, replaced when they are lost
``service``     a script that answers calls by its ``rules``, whoever brings them; ``turns`` one such call
``errands``     what the script asks for meanwhile, within a ``budget``; ``outside`` how it reaches others
``checked``     the host's own reading of every message, whichever way it goes
``member``      a service with an identity: its node, its server, its calls to others; ``host`` many of them
``inspection``  what is wrong with a script, unrun; ``rehearsal`` a service without a mesh, for its ``cases``

``jail/``       the worker's own side: the layers that hold it, and the pipe between socket and Lua
``lua/``        what runs in the worker's Lua: the codec, the script's environment, the loop

Nothing that a worker says is believed. The host reads every message against its descriptor, keeps all limits
itself, and ends a worker at the first frame that is out of turn.
"""
