"""``python -m services.probe ready|alive SOCKET``: asks a service how it is, and says what it said.

Status 0 for ``ready`` if it is, and for ``alive`` if it answers at all; 1 otherwise. It is run every few
seconds, so it imports next to nothing.
"""

import socket
import sys

#: Seconds that an answer may take; a kubelet waits a little longer.
PATIENCE = 4.0
_LINE = 1024


def main(what: str, path: str) -> int:
    """Ask; give the exit status."""
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(PATIENCE)
            asking.connect(path)
            said = asking.makefile("rb").readline(_LINE).decode().strip()
    except OSError as error:
        said, answered = f"no answer: {error}", False
    else:
        answered = bool(said)
    print(said)  # noqa: T201  for the kubelet, which tells it on
    return 0 if answered and (what == "alive" or said == "ready") else 1


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("ready", "alive"):  # noqa: PLR2004
        sys.exit("usage: python -m services.probe ready|alive SOCKET")
    sys.exit(main(sys.argv[1], sys.argv[2]))
