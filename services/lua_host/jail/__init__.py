"""The worker's own side: the layers that hold it, and the pipe between its socket and its Lua.

``launch``    how the host starts a worker; the only module here that the host imports
``worker``    the process: a Lua state, the jail around it, the pipe
``layers``    the jail: what is put on, in which order, each tried before the next
``user``      nobody, without a capability;  ``landlock`` no files, no TCP;  ``seccomp`` eight syscalls
``kernel``    syscalls that Python has no name for

This is the trusted base. It imports little of Python's library, and nothing of the mesh: each import costs
every worker time and memory, and is code that has to be believed.
"""
