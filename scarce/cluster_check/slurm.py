"""sbatch files: what bash and shellcheck say, and what a sweep needs of Slurm."""

import re
import shutil
import subprocess
from collections.abc import Iterator

from scarce.cluster_check.common import Check, ClusterFile, Fault, Pins, Skip, matches

_OPTIONS = {
    "job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus", "gpus-per-node", "gpus-per-task", "gres",
    "mem", "mem-per-cpu", "mem-per-gpu", "time", "signal", "requeue", "open-mode", "output", "error", "exclusive",
    "constraint", "qos", "account", "partition", "array", "mail-type", "comment", "exclude", "tmp",
}  # fmt: skip
_NOTICE_S = 45  # scarce.cluster.node_notice waits up to 25 s for the trials; Ray and the driver need some as well


def bash(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """bash -n: syntax."""
    program = shutil.which("bash")
    if not program:
        raise Skip("bash is not installed")
    ended = subprocess.run([program, "-n", str(file.path)], capture_output=True, text=True)
    for line in ended.stderr.splitlines() if ended.returncode else ():
        found = re.search(r"line (\d+): (.*)", line)
        yield Fault(int(found[1]) if found else 0, found[2] if found else line)


def shellcheck(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Shellcheck, where it is installed."""
    program = shutil.which("shellcheck")
    if not program:
        raise Skip("shellcheck is not installed")
    ended = subprocess.run([program, "--format=gcc", str(file.path)], capture_output=True, text=True)
    for line in ended.stdout.splitlines():
        found = re.match(r".*?:(\d+):\d+: (.*)", line)
        if found:
            yield Fault(int(found[1]), found[2])


def options(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """The #SBATCH lines."""
    found: dict[str, tuple[int, str]] = {}
    started = 0
    for number, text in enumerate(file.text.splitlines(), 1):
        if text.startswith("#SBATCH"):
            match = re.fullmatch(r"#SBATCH\s+--([\w-]+)(?:[= ](\S+))?\s*", text)
            if started:
                yield Fault(number, f"Slurm ignores what comes after the first command, in line {started}: move it up")
            elif not match or match[1] not in _OPTIONS:
                yield Fault(number, f"{text!r} is no option of sbatch known here: expected #SBATCH --name=value")
            else:
                found[match[1]] = (number, match[2] or "")
        elif text.strip() and not text.startswith("#"):
            started = started or number
    if not file.text.startswith("#!/bin/bash"):
        yield Fault(1, "sbatch wants #!/bin/bash in the first line")
    for name, why in (
        ("time", "a job without a limit waits longest"),
        ("requeue", "what was preempted must come back"),
        ("nodes", "how many machines?"),
        ("signal", f"write --signal=B:TERM@60: the trials need notice of at least {_NOTICE_S} s"),
    ):
        if name not in found:
            yield Fault(1, f"no #SBATCH --{name}: {why}")
    if "gpus-per-node" not in found and "gres" not in found:
        yield Fault(1, "no #SBATCH --gpus-per-node: trials would train on CPUs")
    line, value = found.get("signal", (0, ""))
    notice = re.fullmatch(r"B:TERM@(\d+)", value)
    if line and (not notice or int(notice[1]) < _NOTICE_S):
        yield Fault(line, f"--signal={value}: write B:TERM@60, SIGTERM to this script at least {_NOTICE_S} s before")


def script(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """What starts, what ends, and that everything has the token."""
    text = "\n".join(file.code)
    joined = re.sub(r"\\\n\s*", " ", text)
    for pattern, text_if_missing in (
        (r"^set -euo pipefail", "goes on after errors: write set -euo pipefail"),
        (r"^trap \S+ EXIT", "leaves Ray running when it ends: set a trap on EXIT"),
        (r"^trap \S+ TERM", "does not hear that its time is up: set a trap on TERM"),
        (r"scontrol requeue", 'does not go back into the queue: scontrol requeue "$SLURM_JOB_ID"'),
        (r"--resume", "a second attempt would find the run's folder taken: pass --resume"),
        (r"^\s*umask 077", "others could read the token: umask 077 before it is written"),
        (r"^export .*RAY_AUTH_MODE=token", "starts Ray without a token: export RAY_AUTH_MODE=token"),
        (r"^export .*RAY_AUTH_TOKEN_PATH=", "nodes do not know the token: export RAY_AUTH_TOKEN_PATH"),
        (r"^export RAY_ADDRESS=", "beside another job's cluster its processes do not find theirs: export RAY_ADDRESS"),
        (r"srun .*scarce\.cluster\.node_notice -- .*ray start --block", "must start Ray by srun under node_notice"),
        (r"sweeps/\w+\.py .*--address", "the sweep must be told --address, or it starts a cluster of its own"),
        (r"^wait ", "does not wait for the sweep, whose exit code is the job's"),
    ):
        if not re.search(pattern, joined, re.MULTILINE):
            yield Fault(0, text_if_missing)
    first = next(iter(matches(file, r"\bray start\b")), None)
    mode = next(iter(matches(file, r"RAY_AUTH_MODE=token")), None)
    if first and mode and mode[0] > first[0]:
        yield Fault(first[0], "starts Ray before RAY_AUTH_MODE=token is exported")
    for number, match in matches(file, r"(?<![\w/.-])(python3?|ray)\s+(?:-m|-c|start|stop|health-check|sweeps)"):
        yield Fault(
            number, f"{match[1]} may be any: write .venv/bin/{match[1]}, which has requirements.lock's versions"
        )


CHECKS = (
    Check("bash -n", bash),
    Check("shellcheck", shellcheck),
    Check("options of sbatch", options, "structure only"),
    Check("start, end and token", script, "structure only"),
)
