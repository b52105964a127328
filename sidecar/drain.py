"""``python -m sidecar.drain [PID]``: tells a sidecar (process 1 of its container) that its end is near.

It leaves the directory and serves on, so that an application which ends gets no new calls. It is what a pod's
preStop hook runs: images without a shell have no kill.
"""

import os
import signal
import sys

if __name__ == "__main__":
    os.kill(int(sys.argv[1]) if len(sys.argv) > 1 else 1, signal.SIGUSR1)
