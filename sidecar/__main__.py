"""``python -m sidecar``: the same as ``mesh sidecar``."""

import os

# gRPC reads this when it is loaded. What it says by itself on stderr, the sidecar says in a line of its own.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from mesh.cli import main

if __name__ == "__main__":
    main(["sidecar"])
