"""``python -m services.auth``."""

import os

# gRPC reads this when it is loaded. What it says by itself on stderr, auth says in a line of its own.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from services.auth.main import main

main(prog_name="python -m services.auth")
