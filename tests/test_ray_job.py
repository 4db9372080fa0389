"""A sweep as a Ray job: `ray job submit -- python sweeps/ssl_aug.py`."""

import json
import shlex
import socket
import sys
import time
from pathlib import Path

import pytest
import ray
from phantom_hospitals import FLAGS, SCRIPT, write_hospitals
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.job_submission import JobStatus, JobSubmissionClient

PATIENCE = 300  # seconds


def submit(client: JobSubmissionClient, command: str) -> str:
    """The job's id. A young cluster takes no jobs yet, and of several on a machine only the first one ever does."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return client.submit_job(entrypoint=command, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            if time.monotonic() > deadline:
                with socket.create_connection(("127.0.0.1", DEFAULT_DASHBOARD_AGENT_LISTEN_PORT), timeout=5):
                    pytest.skip("another Ray cluster on this machine has the port at which jobs are taken")
        time.sleep(0.5)


@pytest.mark.long
def test_a_job_joins_the_cluster_that_it_was_submitted_to(ray_cluster: str, tmp_path: Path) -> None:
    write_hospitals(tmp_path)
    data = ["--pretrain", str(tmp_path / "a"), "--target", str(tmp_path / "b"), "--out", "runs", "--name", "job"]
    command = [sys.executable, str(SCRIPT), *data, *FLAGS, "--trials", "1", "--epochs", "1"]
    client = JobSubmissionClient(ray_cluster)
    job = submit(client, f"cd {tmp_path} && {shlex.join(command)}")
    deadline = time.monotonic() + PATIENCE
    while not client.get_job_status(job).is_terminal():
        assert time.monotonic() < deadline, client.get_job_logs(job)
        time.sleep(0.5)
    said = client.get_job_logs(job)
    assert client.get_job_status(job) == JobStatus.SUCCEEDED, said
    assert f"Ray dashboard: {ray_cluster}" in said
    assert "\x1b" not in said  # a job has no terminal
    run = tmp_path / "runs" / "job"
    assert json.loads((run / "summary.json").read_text())["chosen"]["auc"] > 0
    attempts = [json.loads(path.read_text()) for path in run.glob("trials/*/attempts/*.json")]
    assert {attempt["node_id"] for attempt in attempts} == {node["NodeID"] for node in ray.nodes()}
