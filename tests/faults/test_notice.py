"""Notice that a machine is about to go, as spot machines and scripts get it."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pretraining import run

from scarce.checkpoint import list_checkpoints
from scarce.cluster import notice as module
from scarce.cluster.notice import VARIABLE, Notice, give_notice, sigterm_is_notice, unsaved_processes
from scarce.errors import Terminated
from scarce.pretrain import Preempted

PATIENCE = 60.0  # seconds

# A training process: holds unsaved work until it sees the notice, saves, and stays until its machine ends it.
WORKER = """
import time
from pathlib import Path
from scarce.cluster.notice import Notice
notice = Notice()
with notice.unsaved():
    Path("training").touch()
    while not notice.given():
        time.sleep(0.01)
    Path("saved").touch()
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(("method", "leave_after"), [("simclr", 1), ("simclr", 2), ("moco", 3), ("dino", 1)])
def test_a_run_that_must_leave_goes_on_from_that_very_step_to_the_same_bits(tmp_path: Path, method, leave_after):
    undisturbed = run(tmp_path / "whole", method)
    steps: list[int] = []

    def must_leave() -> bool:
        steps.append(len(steps) + 1)
        return len(steps) == leave_after

    with pytest.raises(Preempted, match=f"at step {leave_after}"):
        run(tmp_path / "left", method, must_leave=must_leave)
    assert list_checkpoints(tmp_path / "left")[-1].stem == f"step-{leave_after:08d}"
    assert run(tmp_path / "left", method, must_leave=must_leave) == undisturbed
    assert len(steps) == 7  # of 8 steps each was made once, and after the last nobody asks
    assert list_checkpoints(tmp_path / "left")[-1].name == "step-00000008.pt"


def test_without_the_variable_there_is_no_notice(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    notice = Notice()
    assert not notice.given()
    with notice.unsaved(), notice.saved():
        pass


def test_who_gives_notice_waits_for_unsaved_work_of_running_processes(tmp_path: Path, monkeypatch, capsys):
    path = tmp_path / "notice"
    monkeypatch.setenv(VARIABLE, str(path))
    (tmp_path / "notice.unsaved-999999999").touch()  # its process was killed
    notice = Notice()
    with notice.unsaved():
        assert not notice.given()
        assert unsaved_processes(path) == [os.getpid()]
        assert not give_notice(path, 0.1)
        assert "1 training process(es) had not saved within 0 s" in capsys.readouterr().out
        assert notice.given()
        with notice.saved():
            assert give_notice(path, 0.1)
    assert give_notice(path, 0.1)
    monkeypatch.setattr(module, "STALE_S", -1.0)
    assert not notice.given()  # the machine is still there


def test_sigterm_of_a_script_is_notice_and_then_the_end():
    def script() -> None:
        with sigterm_is_notice(seconds=5):
            folders.append(Path(os.environ[VARIABLE]).parent)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(lambda: False)

    folders: list[Path] = []
    with pytest.raises(Terminated):
        script()
    assert not folders[0].exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def start_node(folder: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scarce.cluster.node_notice", *flags, "--", sys.executable, "-c", WORKER]
    return subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, text=True)


def child_of(process: subprocess.Popen[str]) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


def test_sigterm_to_a_node_lets_its_workers_save_before_it_ends(tmp_path: Path):
    node = start_node(tmp_path)
    wait_for((tmp_path / "training").exists)
    child = child_of(node)
    node.send_signal(signal.SIGTERM)
    output, _ = node.communicate(timeout=PATIENCE)
    assert node.returncode == 143
    assert "about to go" in output
    assert (tmp_path / "saved").exists()
    assert not Path(f"/proc/{child}").exists()


def test_google_clouds_metadata_server_is_heeded_too(tmp_path: Path):
    answers = [b"FALSE", b"TRUE"]
    asked = []

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Metadata-Flavor"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[min((tmp_path / "training").exists(), 1)])

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = start_node(tmp_path, "--gce", GCE_METADATA_HOST=f"127.0.0.1:{server.server_port}")
        node.communicate(timeout=PATIENCE)
        server.shutdown()
    assert node.returncode == 143
    assert set(asked) == {("/computeMetadata/v1/instance/preempted", "Google")}
    assert (tmp_path / "saved").exists()


def test_a_node_that_ends_by_itself_keeps_its_exit_code(tmp_path: Path):
    command = [sys.executable, "-m", "scarce.cluster.node_notice", "--", sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, check=False, timeout=PATIENCE).returncode == 7
