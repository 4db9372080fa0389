"""Random faults for half an hour: sweeps on a cluster of three nodes, each against the same trials left alone.

    python tests/simulated/chaos.py --minutes 30 --log docs/chaos.log                      (`make chaos`)

One sweep after the other runs on a simulated cluster, and every few seconds something happens to it: a training process
is killed, a node is lost, a spot machine gives notice and goes, a checkpoint is cut short, the control store is
restarted, the sweep's script is killed or told to end (and started again with --resume). Afterwards every trial has to
be there, with the numbers it has in a process without Ray that nothing happened to, and what had been reported before a
fault must not have been trained again. The log names every fault; its last lines are the balance. Exit code 1 where
anything was lost.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from drivers import UNPRUNED, Driver, undisturbed, untimed
from phantom_hospitals import write_hospitals
from simulated import SimulatedCluster, simulated_cluster, wait_for

from scarce.cluster.notice import give_notice

TRIALS = 6
FLAGS = [*UNPRUNED, "--trials", str(TRIALS), "--gpus-per-trial", "0.5", "--concurrent", "2"]
NODE = {"num_cpus": 4, "num_gpus": 1}
PAUSE_S = (2.0, 10.0)  # between two faults, or from a trial's beginning to the next fault
BETWEEN_TRIALS = 0.2  # share of the faults that wait for no trial: a script starts for longer than its trials work

Reports = dict[str, list[dict[str, Any]]]  # by trial


class Chaos:
    """One sweep after the other, and what happens to them."""

    def __init__(self, cluster: SimulatedCluster, shared: Path, log: Path, seed: int) -> None:
        self.cluster = cluster
        self.shared = shared
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.log = log
        self.faults: Counter[str] = Counter()
        self.balance: Counter[str] = Counter()
        self.cuts: Counter[str] = Counter()  # checkpoints of the present sweep that were cut short, by trial
        self.references: Reports = {}
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """A line for the log, with the seconds since the beginning."""
        self.lines.append(f"{time.monotonic() - self.began:7.1f} s  {text}")
        print(self.lines[-1], flush=True)
        self.log.write_text("\n".join(self.lines) + "\n")

    def run(self, number: int) -> None:
        """One sweep, disturbed from its first report to its end."""
        name = f"sweep-{number}"
        driver = Driver(self.cluster, self.shared, name, *FLAGS)
        reported: list[Reports] = []  # what there was before each fault
        self.cuts.clear()
        with suppress(AssertionError):  # it may end before it reports, which the balance tells
            driver.wait_for(lambda: driver.histories, "a report")
        while driver.process.poll() is None:
            if self.random.random() > BETWEEN_TRIALS:
                while driver.process.poll() is None and working(self, driver) is None:
                    time.sleep(0.1)
            time.sleep(self.random.uniform(*PAUSE_S))
            fault = self.random.choice(FAULTS)
            reports = driver.histories
            if driver.process.poll() is None and (what := fault(self, driver)):
                kind = fault.__name__.replace("_", " ")
                self.faults[kind] += 1
                reported.append(reports)
                self.say(f"{name}  {kind}: {what}")
            if driver.process.poll() not in (None, 0):
                time.sleep(self.random.uniform(0.0, 2.0))
                driver = Driver(self.cluster, self.shared, name, *FLAGS, "--resume")
        self.judge(name, driver, reported)

    def judge(self, name: str, driver: Driver, reported: list[Reports]) -> None:
        """What was lost of a sweep that has ended."""
        table = pd.read_parquet(driver.run / "trials.parquet")
        histories = driver.histories
        for trial in histories:
            if trial not in self.references:
                with tempfile.TemporaryDirectory() as out:
                    self.references[trial] = undisturbed(self.shared, driver.run, trial, Path(out))
        done = int((table["status"] == "done").sum())
        different = sum(untimed(histories[trial]) != untimed(self.references[trial]) for trial in histories)
        again: Counter[str] = Counter()  # by trial
        for before, later in pairwise([*reported, histories]):
            for trial, reports in before.items():  # a report made once more differs in its speed
                again[trial] += sum(one != new for one, new in zip(reports, later.get(trial, ()), strict=False))
        # A cut may show only after the fault that follows it, when its trial has begun again.
        excused = again & self.cuts
        self.balance["reports trained again as their checkpoint was cut short"] += excused.total()
        self.balance["reports trained again after another fault"] += (again - excused).total()
        self.balance["sweeps"] += 1
        self.balance["trials"] += TRIALS
        self.balance["trials lost"] += TRIALS - done
        self.balance["trials with other numbers"] += different
        self.balance["reports"] += sum(map(len, histories.values()))
        self.say(
            f"{name}  ended after {len(reported)} faults: {done} of {TRIALS} trials done, {different} with other "
            f"numbers, {again.total()} reports trained again"
        )


Fault = Callable[[Chaos, Driver], str]  # says what it hit; empty: there was nothing to hit


def working(chaos: Chaos, driver: Driver) -> dict[str, Any] | None:
    """An attempt on a trial that is being worked on."""
    attempts = [
        attempts[-1] | {"trial": trial}
        for trial, attempts in driver.attempts.items()
        if attempts and attempts[-1]["ended"] is None and Path(f"/proc/{attempts[-1]['pid']}").exists()
    ]
    return chaos.random.choice(sorted(attempts, key=lambda attempt: attempt["trial"])) if attempts else None


def training_process_killed(chaos: Chaos, driver: Driver) -> str:
    """kill -9 of a trial's process."""
    if (attempt := working(chaos, driver)) is None:
        return ""
    with suppress(ProcessLookupError):
        os.kill(attempt["pid"], signal.SIGKILL)
    return f"trial {attempt['trial']}"


def node_lost(chaos: Chaos, driver: Driver) -> str:
    """kill -9 of a raylet, and another node in its place."""
    if (attempt := working(chaos, driver)) is None:
        return ""
    nodes = chaos.cluster.tell("node_ids")["ids"]
    chaos.cluster.tell("lose", nodes.index(attempt["node_id"]))
    chaos.cluster.tell("add", NODE)
    return f"with trial {attempt['trial']}"


def spot_machine_taken(chaos: Chaos, driver: Driver) -> str:
    """Notice to a node's trials, which save; then the node goes and another comes."""
    if (attempt := working(chaos, driver)) is None:
        return ""
    number = chaos.cluster.tell("node_ids")["ids"].index(attempt["node_id"])
    saved = give_notice(chaos.cluster.home(number) / "notice", 25.0)
    chaos.cluster.tell("lose", number)
    chaos.cluster.tell("add", NODE)
    return f"with trial {attempt['trial']}, {'its work saved' if saved else 'its work NOT saved in 25 s'}"


def checkpoint_cut_short(chaos: Chaos, driver: Driver) -> str:
    """Half of the newest checkpoint is gone, and so is its trial's process."""
    attempt = working(chaos, driver)
    files = sorted((driver.run / "trials" / attempt["trial"]).glob("step-*.pt")) if attempt else []
    if attempt is None or len(files) < 2:
        return ""
    os.kill(attempt["pid"], signal.SIGSTOP)  # so that it cannot write another
    newest = max((driver.run / "trials" / attempt["trial"]).glob("step-*.pt"))
    os.truncate(newest, newest.stat().st_size // 2)
    os.kill(attempt["pid"], signal.SIGKILL)
    chaos.cuts[attempt["trial"]] += 1
    return f"{newest.name} of trial {attempt['trial']}"


def control_store_restarted(chaos: Chaos, driver: Driver) -> str:
    """kill -9 of the head's GCS, and another one that reads its tables."""
    chaos.cluster.tell("kill_gcs")
    seconds = chaos.random.uniform(0.0, 3.0)
    time.sleep(seconds)
    chaos.cluster.tell("start_gcs")
    return f"away for {seconds:.1f} s"


def script_killed(chaos: Chaos, driver: Driver) -> str:
    """kill -9 of the sweep's script."""
    return _end(chaos, driver, signal.SIGKILL)


def script_told_to_end(chaos: Chaos, driver: Driver) -> str:
    """SIGTERM to the sweep's script."""
    return _end(chaos, driver, signal.SIGTERM)


def _end(chaos: Chaos, driver: Driver, how: signal.Signals) -> str:
    driver.process.send_signal(how)
    code = driver.process.wait()
    wait_for(lambda: not chaos.cluster.busy(), "everything of its run ended")
    return f"exit code {code}"


FAULTS: list[Fault] = [
    *(training_process_killed, node_lost, spot_machine_taken, checkpoint_cut_short),
    *(control_store_restarted, script_killed, script_told_to_end),
]


def main() -> int:
    """Run until time is up and the last sweep has ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="after which no further sweep begins")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--log", type=Path, default=Path("chaos.log"), help="file for every fault and the balance")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scarce-chaos-") as directory:
        shared = Path(directory)
        write_hospitals(shared, patients=800)
        storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(shared / "gcs")}
        with simulated_cluster(shared, {"num_cpus": 2, "num_gpus": 0}, NODE, NODE, **storage) as cluster:
            chaos = Chaos(cluster, shared, arguments.log, arguments.seed)
            number = 0
            while time.monotonic() - chaos.began < arguments.minutes * 60:
                chaos.run(number)
                number += 1
    for kind, count in sorted(chaos.faults.items()):
        chaos.say(f"fault  {kind}: {count} times")
    for what, count in chaos.balance.items():
        chaos.say(f"total  {what}: {count}")
    lost = ("trials lost", "trials with other numbers", "reports trained again after another fault")
    return int(any(chaos.balance[what] for what in lost))


if __name__ == "__main__":
    sys.exit(main())
