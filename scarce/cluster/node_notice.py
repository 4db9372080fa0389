"""Runs a Ray node on a machine that may be taken away, and lets its trials save their work before it is.

    python -m scarce.cluster.node_notice [--gce] -- ray start --block --address=HEAD:6379

Spot machines get SIGTERM (or, on Google Cloud, an entry of their metadata server, which --gce watches) about 30 s
before the end. Ray would end its workers at once; here they are given notice (`scarce.cluster.notice`), and Ray is
ended when they have saved a checkpoint. Their trials go on elsewhere.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from scarce.cluster.notice import VARIABLE, give_notice

SAVING_S = 25.0  # of the 30 s that there are
ENDING_S = 4.0
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"  # how long Ray, once told, waits for what still runs on the node
POLL_S = 1.0


def is_preempted(host: str) -> bool:
    """What Google Cloud's metadata server says; False where none answers."""
    url = f"http://{host}/computeMetadata/v1/instance/preempted"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=POLL_S) as answer:
            return bool(answer.read().strip() == b"TRUE")
    except OSError:
        return False


def main() -> int:
    """Run the command; its exit code, or 143 after a notice."""
    parser = argparse.ArgumentParser(
        prog="python -m scarce.cluster.node_notice", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--gce", action="store_true", help="ask Google Cloud's metadata server as well")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    arguments = parser.parse_args()
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")  # as Google's own libraries have it
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    signal.signal(signal.SIGINT, lambda *_: told.set())
    with tempfile.TemporaryDirectory(prefix="scarce-notice-") as directory:
        path = Path(directory) / "notice"
        # In a session of its own: a signal for the whole group, as from a terminal, is for this process alone.
        environment = {DRAIN: str(ENDING_S / 2), **os.environ, VARIABLE: str(path)}
        child = subprocess.Popen(arguments.command, env=environment, start_new_session=True)
        while child.poll() is None and not told.wait(POLL_S):
            if arguments.gce and is_preempted(host):
                told.set()
        if child.poll() is not None:
            return child.returncode
        print("this machine is about to go: waiting until its trials have saved their work", flush=True)
        give_notice(path, SAVING_S)
        child.terminate()
        try:
            child.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return 143


if __name__ == "__main__":
    sys.exit(main())
