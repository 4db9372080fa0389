"""The files of cluster/ pass every check, each check finds the mistakes it is for, and the sbatch script works."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from scarce.cluster_check.check import Verdict, check_files
from scarce.errors import UserError

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
FILES = [
    "Dockerfile",
    "compose.yaml",
    "gcp-spot.yaml",
    "kuberay/raycluster.yaml",
    "kuberay/rayjob.yaml",
    "kuberay/storage.yaml",
    "l4.yaml",
    "monitoring/grafana.json",
    "monitoring/prometheus.yaml",
    "slurm/sweep.sbatch",
]


def faults(verdicts: list[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.outcome == "fault"]


def test_every_file_is_checked_and_passes():
    verdicts = check_files([])
    checked = {str(path).partition("cluster/")[2] for path in (verdict.path for verdict in verdicts)}
    assert checked == set(FILES)
    assert [str(fault) for fault in faults(verdicts)] == []


def test_it_says_how_much_a_check_means():
    outcomes = {(verdict.path.name, verdict.check): verdict.outcome for verdict in check_files([])}
    assert outcomes["l4.yaml", "Ray's launcher validator"] == "ok"
    assert outcomes["storage.yaml", "Kubernetes 1.34 schemas"] == "ok"
    assert outcomes["rayjob.yaml", "KubeRay kinds"] == "structure only"
    assert outcomes["compose.yaml", "services"] == "structure only"
    assert outcomes["sweep.sbatch", "bash -n"] == "ok"


# File, what is written there, what instead (an empty string: nothing), and what the fault must say.
MISTAKES = [
    # Ray's validator
    ("gcp-spot.yaml", "idle_timeout_minutes: 10", "idle_timeout_minuts: 10", "idle_timeout_minuts"),
    ("gcp-spot.yaml", "max_workers: 16\nupscaling", "max_workers: many\nupscaling", "max_workers.*integer"),
    ("l4.yaml", "head_node_type: l4", "head_node_type: t4", "head_node_type"),
    ("gcp-spot.yaml", "min_workers: 0\n    max_workers: 16", "min_workers: 17\n    max_workers: 17", "smaller than"),
    ("l4.yaml", "  type: gcp\n", "", "Ray cannot read it"),
    # machines
    ("l4.yaml", "machineType: g2-standard-8", "machineType: 5", "machineType must be a str, found 5"),
    ("l4.yaml", "machineType: g2-standard-8", "machinetype: g2-standard-8", "no machinetype"),
    ("l4.yaml", "  project_id: ${GOOGLE_CLOUD_PROJECT}\n", "", "no provider.project_id"),
    ("l4.yaml", "${GOOGLE_CLOUD_PROJECT}", "scarce-prod-1", "project scarce-prod-1 is a value"),
    ("gcp-spot.yaml", "min_workers: 0\n    max_workers: 16", "min_workers: 5\n    max_workers: 4", "is more than max"),
    ("gcp-spot.yaml", "acceleratorCount: 1", "acceleratorCount: 2", "resources say 1 GPU.* 2"),
    ("l4.yaml", re.compile(r"      guestAcc.*?Count: 1\n", re.DOTALL), "", "resources say 1 GPU.* 0"),
    ("l4.yaml", '"CPU": 8', '"CPU": 16', "16 CPUs, but a g2-standard-8 has 8"),
    ("l4.yaml", "diskSizeGb: 200", "diskSizeGb: 20", "a disk of 20 GB"),
    ("l4.yaml", "diskSizeGb: 200", "diskSizeGb: large", "diskSizeGb must be a int"),
    ("l4.yaml", "zones/us-central1-a", "zones/us-east1-b", "a disk of zone us-east1-b"),
    ("l4.yaml", "zone: us-central1-a", "zone: europe-west4-a", "not in region"),
    ("l4.yaml", "onHostMaintenance: TERMINATE", "onHostMaintenance: MIGRATE", "onHostMaintenance"),
    ("l4.yaml", "onHostMaintenance: TERMINATE", "- onHostMaintenance: TERMINATE", "drop the dash"),
    ("gcp-spot.yaml", "provisioningModel: SPOT", "provisioningModel: CHEAP", "expected STANDARD or SPOT"),
    ("gcp-spot.yaml", "instanceTerminationAction: DELETE", "instanceTerminationAction: STOP", "costing its disk"),
    # head and workers
    ("gcp-spot.yaml", '{"CPU": 1, "GPU": 0}', '{"CPU": 8, "GPU": 1}', "trials of --preset l4 fit on the head"),
    ("gcp-spot.yaml", "idle_timeout_minutes: 10", "", "idle_timeout_minutes is None"),
    ("gcp-spot.yaml", '"CPU": 8, "GPU": 1', '"CPU": 1, "GPU": 1', "no trial of --preset l4 fits on it"),
    ("gcp-spot.yaml", "-m scarce.cluster.node_notice --", "", "without scarce.cluster.node_notice"),
    ("gcp-spot.yaml", "--property=KillMode=mixed", "", "without KillMode=mixed"),
    ("gcp-spot.yaml", re.compile(r"  ~/.ray/auth_token: .*\n"), "", "workers get no token"),
    ("gcp-spot.yaml", "--address=\"$RAY_HEAD_IP:6379\"", "", "do not start Ray with --address"),
    # commands
    ("gcp-spot.yaml", "--setenv=RAY_AUTH_MODE=token", "", "worker_start_ray_commands start Ray without RAY_AUTH_MODE"),
    ("l4.yaml", "RAY_AUTH_MODE=token ~/scarce", "~/scarce", "head_start_ray_commands start Ray without RAY_AUTH_MODE"),
    ("l4.yaml", "RAY_AUTH_MODE=token ~", "RAY_AUTH_MODE=disabled ~", "RAY_AUTH_MODE is disabled"),
    ("l4.yaml", "host=127.0.0.1", "host=0.0.0.0", "the dashboard would listen on 0.0.0.0"),
    ("l4.yaml", "make install PYTHON=python3.12", "pip install ray==2.59.0", "ray 2.59.0, but requirements.lock has"),
    ("l4.yaml", "make install PYTHON=python3.12", "pip install ray torch", "installs packages without versions"),
    ("l4.yaml", "PYTHON=python3.12", "PYTHON=python3.10", "scarce needs 3.11 or newer"),
    ("l4.yaml", "PYTHON=python3.12", "PYTHON=python3.11", "Python 3.11, expected 3.12"),
    ("l4.yaml", re.compile(r"head_setup_commands: .*\n"), "", "Ray runs its default"),
    ("l4.yaml", "chmod 600 ~/.ray/auth_token", "if true; then chmod 600 ~/.ray/auth_token", "bash: "),
    # names, secrets, the top of the file
    ("gcp-spot.yaml", '"${SCARCE_BUCKET} /mnt', '"my-bucket /mnt', "bucket my-bucket is a value"),
    ("gcp-spot.yaml", "v1@${GOOGLE_CLOUD_PROJECT}", "v1@my-project", "project my-project is a value"),
    ("gcp-spot.yaml", "RAY_AUTH_MODE=token --",
     "RAY_AUTH_MODE=token --setenv=RAY_AUTH_TOKEN=5f1c9a --", "holds a secret"),
    ("l4.yaml", "(assumption of 2026-11", "(November", "states no cost"),
    ("l4.yaml", "# Fetch, stop", "#", "no line '# Fetch, stop"),
    # any YAML
    ("l4.yaml", "max_workers: 0 #", "max_workers: 1\nmax_workers: 0 #", "max_workers is there twice"),
    ("l4.yaml", "provider:\n", "provider: [\n", "is no YAML"),
    # Kubernetes
    ("kuberay/storage.yaml", "accessModes: [ReadWriteMany]", "accessModes: ReadWriteMany", "not of type"),
    ("kuberay/storage.yaml", "storageClassName:", "storageClass:", "'storageClass' was unexpected"),
    ("kuberay/storage.yaml", "apiVersion: v1", "apiVersion: v2", "Couldn't find schema"),
    ("kuberay/raycluster.yaml", "terminationGracePeriodSeconds: 30",
     'terminationGracePeriodSeconds: "30"', "not of type"),
    ("kuberay/raycluster.yaml", "readinessProbe:", "readynessProbe:", "readynessProbe"),
    ("kuberay/raycluster.yaml", re.compile(r" +livenessProbe:.*?failureThreshold: 8\n", re.DOTALL),
     "", "no livenessProbe"),
    ("kuberay/raycluster.yaml", '  limits: {cpu: "7", memory: 24Gi}',
     "  limits: {memory: 24Gi}", "no resources.limits.cpu"),
    ("kuberay/raycluster.yaml", 'limits: {cpu: "7", memory: 26Gi, nvidia.com/gpu: "1"}',
     'limits: {cpu: "7", memory: 26Gi}', "num-gpus 1, but the limit"),
    ("kuberay/raycluster.yaml", "maxReplicas: 16", "maxReplicas: -1", "not between"),
    ("kuberay/raycluster.yaml", "maxReplicas: 16", "maxReplica: 16", "no maxReplica:"),
    ("kuberay/raycluster.yaml", "minReplicas: 0", 'minReplicas: "0"', "minReplicas must be a int"),
    ("kuberay/raycluster.yaml", '"2.60.0"', '"2.52.0"', "rayVersion 2.52.0, but requirements.lock has"),
    ("kuberay/raycluster.yaml", "  authOptions: {mode: token, secretName: scarce-ray-token}\n", "", "no token"),
    ("kuberay/rayjob.yaml", "mode: token", "mode: disabled", "no token"),
    ("kuberay/raycluster.yaml", "python -m scarce.cluster.node_notice -- ", "", "Ray does not start under"),
    ("kuberay/raycluster.yaml", 'num-cpus: "1", num-gpus: "0"', "num-cpus: 1, num-gpus: 0", "must be a string"),
    ("kuberay/raycluster.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer", "open to the outside"),
    ("kuberay/raycluster.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
    ("kuberay/raycluster.yaml", "claimName: scarce", "claimName: other", "no file here makes the claim other"),
    ("kuberay/raycluster.yaml", "${SCARCE_IMAGE}", "registry.example/me/scarce:0.1.0", "image registry.* is a value"),
    ("kuberay/raycluster.yaml", "{name: SCARCE_CACHE, value: /tmp/scarce}",
     "{name: RAY_AUTH_TOKEN, value: 5f1c9a}", "RAY_AUTH_TOKEN is a value"),
    ("kuberay/rayjob.yaml", "&& echo --resume", "&& echo", "add --resume"),
    ("kuberay/rayjob.yaml", "shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "outlives its job"),
    ("kuberay/rayjob.yaml", "config.json && echo --resume)", "config.json && echo --resume", "bash: "),
    # compose and its Dockerfile
    ("compose.yaml", "    shm_size: 8gb", "    shm_size: 64mb", "shm_size 64mb"),
    ("compose.yaml", "      RAY_AUTH_MODE: token\n", "", "no token"),
    ("compose.yaml", "secrets: [ray_auth_token]", "secrets: [ray_token]", "secret ray_token is not among"),
    ("compose.yaml", "    init: true",
     "    ports: ['8265:8265']\n    init: true", "port 8265:8265 is open to the network"),
    ("compose.yaml", "    profiles: [gpu]\n", "", "needs a GPU by default"),
    ("compose.yaml", "image: scarce:0.1.0", "image: scarce:latest", "scarce:latest is not pinned"),
    ("compose.yaml", "image: scarce:0.1.0", "image: scarce:0.0.9", "scarce is at version"),
    ("compose.yaml", "    init: true", "    privilegd: true", "no privilegd"),
    ("Dockerfile", "FROM python:3.11.13-slim-bookworm",
     "FROM python:3.13.1-slim-bookworm", "Python 3.13, expected 3.11"),
    ("Dockerfile", "FROM python:3.11.13-slim-bookworm", "FROM python", "image python is not pinned"),
    ("Dockerfile", "USER scarce\n", "", "runs as root"),
    ("Dockerfile", "--requirement requirements.lock", "ray torch", "does not install requirements.lock"),
    ("Dockerfile", "COPY sweeps sweeps", "COPY . .", "copies everything"),
    # monitoring
    ("monitoring/prometheus.yaml", "scrape_interval: 10s", "scrape_interval: 10", "scrape_interval must be a str"),
    ("monitoring/prometheus.yaml", "scrape_interval: 10s", "scrape_interval: ten", "expected a duration"),
    ("monitoring/prometheus.yaml", "job_name: ray", "name: ray", "a job has no name"),
    ("monitoring/prometheus.yaml", "prom_metrics_service_discovery.json", "nodes.json", "no node of Ray is found"),
    ("monitoring/prometheus.yaml", "/tmp/ray/", "/tmp/ray-*/", "takes absolute paths"),
    ("monitoring/prometheus.yaml", re.compile(r"    file_sd_configs.*", re.DOTALL), "", "job ray scrapes nothing"),
    ("monitoring/grafana.json", '"panels": [', '"panels": ', "is no JSON"),
    ("monitoring/grafana.json", '"uid": "scarce"', '"uuid": "scarce"', "no uuid"),
    ("monitoring/grafana.json", "(trial) (ray_scarce_loss", "(trial) (ray_scarce_los", "ray_scarce_los is no metric"),
    ("monitoring/grafana.json", "(trial) (ray_scarce_loss", "(trial) (ray_scarce_los", "no panel draws"),
    ("monitoring/grafana.json", "values(ray_scarce_val_auc", "values(ray_val_auc", "ray_val_auc is no metric"),
    ("monitoring/grafana.json", "by (trial) (ray_scarce_loss", "by (node) (ray_scarce_loss", "node is no tag"),
    ("monitoring/grafana.json", 'loss{run=~\\"$run\\"})', 'loss{job=~\\"$run\\"})', "job is no tag"),
    ("monitoring/grafana.json", 'loss{run=~\\"$run\\"})', 'loss{run=~\\"$run\\"}', "do not match"),
    ("monitoring/grafana.json", "{{trial}}", "{{name}}", "legend {{name}}"),
    ("monitoring/grafana.json", '"id": 2', '"id": 1', "another's too"),
    ("monitoring/grafana.json", '"x": 16', '"x": 17', "x . w at most 24"),
    ("monitoring/grafana.json", "${datasource}", "P1809F7CD0C75ACF3", "one site's own"),
    # Slurm
    ("slurm/sweep.sbatch", 'for argument in "$@"; do', 'for argument in "$@";', "syntax error"),
    ("slurm/sweep.sbatch", "trap cleanup EXIT\n", "", "set a trap on EXIT"),
    ("slurm/sweep.sbatch", "#SBATCH --requeue\n", "", "no #SBATCH --requeue"),
    ("slurm/sweep.sbatch", "--signal=B:TERM@60", "--signal=TERM@60", "write B:TERM@60"),
    ("slurm/sweep.sbatch", "--signal=B:TERM@60", "--signal=B:TERM@10", "at least 45 s"),
    ("slurm/sweep.sbatch", "#SBATCH --time=12", "#SBATCH --tiem=12", "no option of sbatch known here"),
    ("slurm/sweep.sbatch", "#SBATCH --requeue", "#SBATCH --account=chest", "leave it to the command line"),
    ("slurm/sweep.sbatch", "set -euo pipefail\n",
     "set -euo pipefail\n#SBATCH --exclusive\n", "after the first command"),
    ("slurm/sweep.sbatch", "  umask 077\n", "", "others could read the token"),
    ("slurm/sweep.sbatch", "export RAY_AUTH_MODE=token ", "export ", "starts Ray without a token"),
    ("slurm/sweep.sbatch", "export RAY_ADDRESS=", "RAY_ADDRESS=", "beside another job's cluster"),
    ("slurm/sweep.sbatch", "    .venv/bin/ray start", "    ray start", "ray may be any"),
    ("slurm/sweep.sbatch", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "would listen on 0.0.0.0"),
    ("slurm/sweep.sbatch", "  scontrol requeue \"$SLURM_JOB_ID\"\n", "", "does not go back into the queue"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "right", "wrong", "told"), MISTAKES, ids=[f"{name}: {told}" for name, _, _, told in MISTAKES]
)
def test_a_mistake_is_found_where_it_is(tmp_path: Path, name: str, right: str | re.Pattern[str], wrong: str, told: str):
    folder = tmp_path / "cluster"
    shutil.copytree(CLUSTER, folder)
    file = folder / name
    before = file.read_text()
    pattern = right if isinstance(right, re.Pattern) else re.compile(re.escape(right))
    after = pattern.sub(lambda _: wrong, before)
    assert after != before, "the file does not have what the mistake is made of"
    file.write_text(after)
    found = faults(check_files([file]))
    assert found
    fitting = [fault for fault in found if re.search(told, fault.text)]
    assert fitting, f"told only {[str(fault) for fault in found]}"
    for fault in found:
        assert len(str(fault).splitlines()) == 1
        assert 0 <= fault.line <= len(after.splitlines())


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("l4.yaml", "machineType: g2-standard-8", "machineType: 5"),
        ("l4.yaml", "host=127.0.0.1", "host=0.0.0.0"),
        ("gcp-spot.yaml", "idle_timeout_minutes: 10", "idle_timeout_minuts: 10"),
        ("kuberay/storage.yaml", "storageClassName:", "storageClass:"),
        ("kuberay/raycluster.yaml", "serviceType: ClusterIP", "serviceType: NodePort"),
        ("kuberay/raycluster.yaml", "terminationGracePeriodSeconds: 30 #", "terminationGracePeriodSeconds: long #"),
        ("compose.yaml", "    shm_size: 8gb", "    shm_size: 64mb"),
        ("slurm/sweep.sbatch", "--signal=B:TERM@60", "--signal=TERM@60"),
        ("monitoring/prometheus.yaml", "scrape_interval: 10s", "scrape_interval: ten"),
        ("monitoring/grafana.json", "(trial) (ray_scarce_loss", "(trial) (ray_scarce_los"),
    ],
)
def test_the_line_is_that_of_the_mistake(tmp_path: Path, name: str, right: str, wrong: str):
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    file = tmp_path / "cluster" / name
    file.write_text(file.read_text().replace(right, wrong))
    lines = file.read_text().splitlines()
    assert any(wrong.strip() in lines[fault.line - 1] for fault in faults(check_files([file])) if fault.line)


@pytest.mark.parametrize("value", [None, 5, [], [{}], {"x": 5}])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gcp-spot.yaml", ("available_node_types",)),
        ("gcp-spot.yaml", ("available_node_types", "head", "resources", "GPU")),
        ("gcp-spot.yaml", ("head_start_ray_commands",)),
        ("kuberay/raycluster.yaml", ("kind",)),
        ("kuberay/raycluster.yaml", ("spec", "workerGroupSpecs", 0, "template", "spec", "volumes", 0)),
        ("compose.yaml", ("services", "sweep", "secrets", 0)),
        ("monitoring/prometheus.yaml", ("scrape_configs",)),
        ("monitoring/prometheus.yaml", ("scrape_configs", 0, "file_sd_configs")),
    ],
)
def test_a_value_of_another_type_is_a_fault_and_no_crash(
    tmp_path: Path, name: str, path: tuple[str | int], value: object
):
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    file = tmp_path / "cluster" / name
    document = yaml.safe_load(file.read_text())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(yaml.safe_dump(document))
    assert [fault for fault in faults(check_files([file])) if "at the top" not in fault.check]


def test_what_is_missing_to_check_kubernetes_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "kubernetes_validate", None)
    with pytest.raises(UserError, match=r"pip install 'scarce\[cluster\]'"):
        check_files([CLUSTER / "kuberay" / "storage.yaml"])


def test_the_job_runs_on_the_cluster_of_the_other_file():
    job = yaml.safe_load((CLUSTER / "kuberay" / "rayjob.yaml").read_text())
    cluster = yaml.safe_load((CLUSTER / "kuberay" / "raycluster.yaml").read_text())
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_files_as_envsubst_leaves_them(tmp_path: Path):
    template = (CLUSTER / "gcp-spot.yaml").read_text()
    half = template.replace("${GOOGLE_CLOUD_PROJECT}", "somebodys-project")
    file = tmp_path / "gcp-spot.yaml"
    file.write_text(half)
    assert any("is still to be filled in" in fault.text for fault in faults(check_files([file], filled=True)))
    file.write_text(half.replace("${SCARCE_BUCKET}", "somebodys-bucket"))
    assert faults(check_files([file], filled=True)) == []
    assert {"project", "bucket"} <= {fault.text.split()[0] for fault in faults(check_files([file]))}
    file.write_text(template.replace("${GOOGLE_CLOUD_PROJECT}", "").replace("${SCARCE_BUCKET}", "b"))
    assert any("no provider.project_id" in fault.text for fault in faults(check_files([file], filled=True)))


def test_a_secret_manifest_with_a_value(tmp_path: Path):
    file = tmp_path / "secret.yaml"
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: scarce-ray-token}\nstringData:\n  auth_token: "
    file.write_text(f"{secret}5f1c9a\n")
    assert any("Secret auth_token is a value" in fault.text for fault in faults(check_files([file])))
    file.write_text(f"{secret}${{TOKEN}}\n")
    assert not any("Secret" in fault.text for fault in faults(check_files([file])))


def test_a_file_of_no_known_kind(tmp_path: Path):
    for name, text in (("a.yaml", "colour: red\n"), ("b.txt", "ray start\n"), ("c.yaml", "")):
        (tmp_path / name).write_text(text)
        assert faults(check_files([tmp_path / name]))
    with pytest.raises(UserError, match=r"expected a text file at .*none\.yaml"):
        check_files([tmp_path / "none.yaml"])


def scarce(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from scarce.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_the_command(tmp_path: Path):
    ended = scarce("cluster", "check")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert {line.split("  ")[0] for line in lines} <= {"ok", "structure only", "skipped"}
    assert {line.split("cluster/")[1].split()[0] for line in lines} == set(FILES)
    wrong = tmp_path / "l4.yaml"
    wrong.write_text((CLUSTER / "l4.yaml").read_text().replace("project_id:", "projectid:"))
    ended = scarce("cluster", "check", wrong, CLUSTER / "compose.yaml")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "scarce: 1 fault(s) in cluster files: mend the lines above that begin with 'fault'"
    ]
    assert "compose.yaml" in ended.stdout  # the first fault is not the end
    assert re.search(rf"^fault +{re.escape(str(wrong))}:\d+  .*project_id", ended.stdout, re.MULTILINE)


# The sbatch script with stand-ins for what it calls: they write down their arguments, and stay until SIGTERM if asked
# to. The sweep waits until both nodes are up.
STAND_IN = """#!/bin/bash
name="${0##*/}"
echo "$name $*" >> "$LOG"
stay() {
  sleep 60 &
  trap 'echo "$name ended" >> "$LOG"; kill $!; exit 143' TERM
  echo up >> "$LOG"
  wait
}
case "$name $*" in
  *"show hostnames"*) echo localhost; echo other ;;
  *token_hex*) printf 0123456789abcdef ;;
  srun*"ray start"*)
    test "$(stat -c %a "$RAY_AUTH_TOKEN_PATH") $RAY_AUTH_MODE" = "600 token" || echo "no token" >> "$LOG"
    echo "at $RAY_ADDRESS" >> "$LOG"
    stay ;;
  python*sweeps/*)
    mkdir -p runs/night; echo "{}" > runs/night/config.json
    until test "$(grep -c ^up "$LOG")" -ge 2; do sleep 0.05; done
    if test -n "$SWEEP_STAYS"; then stay; fi
    exit "$SWEEP_CODE" ;;
esac
"""


def submit(folder: Path, **environment: str) -> subprocess.Popen[str]:
    for name in ("bin/srun", "bin/scontrol", ".venv/bin/python", ".venv/bin/ray"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": folder, "SLURM_JOB_ID": 4711, "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": 8}
    return subprocess.Popen(
        ["bash", CLUSTER / "slurm" / "sweep.sbatch", "--preset", "l4", "--name", "night"],
        env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LOG": str(folder / "log"),
             "SWEEP_STAYS": "", "SWEEP_CODE": "0", **{key: str(value) for key, value in slurm.items()}, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def log_of(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


class TestSbatch:
    def test_head_worker_sweep_and_a_clean_end(self, tmp_path: Path):
        job = submit(tmp_path, SWEEP_CODE="3")
        output, _ = job.communicate(timeout=60)
        assert job.returncode == 3, output  # the sweep's
        log = log_of(tmp_path)
        head, worker = sorted(
            (line for line in log if line.startswith("srun --")), key=lambda line: "--head" not in line
        )
        port = 20000 + 4711 % 1200 * 10
        assert (
            "--nodelist=localhost --export=ALL .venv/bin/python -m scarce.cluster.node_notice -- .venv/bin/ray start"
            in head
        )
        assert f"--head --node-ip-address=127.0.0.1 --port={port} --dashboard-host=127.0.0.1" in head
        assert "--nodelist=other" in worker
        assert f"--address=127.0.0.1:{port}" in worker
        (sweep,) = [line for line in log if "sweeps/ssl_aug.py" in line]
        assert sweep == f"python sweeps/ssl_aug.py --address 127.0.0.1:{port} --preset l4 --name night"
        assert "no token" not in log
        assert log.count(f"at 127.0.0.1:{port}") == 2
        assert log.count("srun ended") == 2
        assert list(tmp_path.glob("build/*")) == []  # the token is gone
        assert not any("requeue" in line for line in log)

        log_file = tmp_path / "log"
        log_file.unlink()
        job = submit(tmp_path)
        output, _ = job.communicate(timeout=60)
        assert job.returncode == 0, output
        assert any(line.endswith("--name night --resume") for line in log_of(tmp_path))

    def test_out_of_time(self, tmp_path: Path):
        job = submit(tmp_path, SWEEP_STAYS="yes")
        deadline = time.monotonic() + 60
        while log_of(tmp_path).count("up") < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGTERM)  # as Slurm does: the script alone
        output, _ = job.communicate(timeout=60)
        assert job.returncode == 143, output
        end = log_of(tmp_path)[-4:]
        assert end == ["srun ended", "srun ended", "python ended", "scontrol requeue 4711"]

    def test_a_name_is_asked_for(self, tmp_path: Path):
        script = subprocess.run(
            ["bash", CLUSTER / "slurm" / "sweep.sbatch", "--preset", "l4"],
            env={**os.environ, "SLURM_SUBMIT_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert script.returncode != 0
        assert "give the sweep a --name" in script.stderr
