"""What befalls a trial of a search, done to it: the others go on, nothing of it is lost, the numbers are the same."""

import json
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray
from faulty_trials import INTERVAL, STEPS, Fault, Sweep, history, noises
from phantom_hospitals import write_hospitals

from scarce.data.feed import Feed
from scarce.data.mapped import MappedFile
from scarce.data.selection import Selection
from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.trials.failures import FAILED_NAME, preemptions
from scarce.trials.records import read_sampled, read_trials, write_trials_table
from scarce.trials.watchdog import HANG_NAME

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.long]


HANG_MINUTES = 0.4  # much longer than anything here takes on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults")
    write_hospitals(path)
    return path


KILLED, HUNG, WARNED, DIVERGED, MISTAKEN, CRAMPED, HEALTHY = noises(7)


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Sweep:
    """One trial in each process."""
    faults = {
        KILLED: Fault({0: "kill", 3: "kill", 6: "kill"}),  # more often than twice, each but the first after progress
        DIVERGED: Fault({1: "nan"}),
        MISTAKEN: Fault({5: "mistake"}),
        CRAMPED: Fault({3: "memory"}),
        HUNG: Fault({3: "hang"}),
        WARNED: Fault({2: "notice"}),
    }
    for hospital in ("a", "b"):
        shutil.copytree(folder / hospital, folder / "gone" / hospital)
    sweep = Sweep(folder / "gone", "one", faults, search={"hang_minutes": HANG_MINUTES})
    shutil.rmtree(folder / "gone" / "a")  # the images are in memory, also for processes that start from now on
    sweep.run([KILLED, HUNG, WARNED, DIVERGED, MISTAKEN, CRAMPED, HEALTHY])
    return sweep


def wait_for(condition: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_a_killed_process_costs_an_interval_at_most_and_no_bit(sweep: Sweep):
    assert KILLED not in sweep.failed
    assert history(sweep.trial(KILLED)) == sweep.undisturbed(KILLED)
    steps = sweep.steps(KILLED)
    assert len({process for process, _ in steps}) == 4
    assert len(steps) <= STEPS + 3 * INTERVAL
    for (process, step), (other, following) in pairwise(steps):
        assert following == step + 1 if process == other else following > step - INTERVAL


def test_what_would_come_again_ends_the_trial_at_once_and_no_other(sweep: Sweep):
    assert sweep.failed.keys() == {DIVERGED, MISTAKEN}
    assert sweep.failed[DIVERGED].startswith("the loss is nan at step 2: lower the learning rate")
    assert sweep.failed[MISTAKEN] == "expected one thing, found another"
    for value, steps in ((DIVERGED, INTERVAL), (MISTAKEN, STEPS), (HEALTHY, STEPS)):
        assert [step for _, step in sweep.steps(value)] == list(range(steps))  # one attempt
    for value, reason in sweep.failed.items():
        assert json.loads((sweep.trial(value) / FAILED_NAME).read_text()) == {"reason": reason}
    assert history(sweep.trial(HEALTHY))[-1]["step"] == STEPS


def test_a_trial_out_of_memory_goes_on_with_smaller_parts_and_no_other_does(sweep: Sweep):
    assert [report["micro_batch"] for report in history(sweep.trial(CRAMPED))] == [32, 16, 16]
    assert [step for _, step in sweep.steps(CRAMPED)] == [0, 1, 2, 3, 2, 3, 4, 5]
    assert {report["micro_batch"] for report in history(sweep.trial(HEALTHY))} == {32}


def test_a_process_that_hangs_is_ended_and_its_trial_goes_on_to_the_same_bits(sweep: Sweep):
    assert history(sweep.trial(HUNG)) == sweep.undisturbed(HUNG)
    assert [step for _, step in sweep.steps(HUNG)] == [0, 1, 2, 3, 2, 3, 4, 5]
    threads = (sweep.trial(HUNG) / HANG_NAME).read_text()
    assert threads.startswith("Timeout (")
    assert "in strike" in threads  # where it hung
    assert not (sweep.trial(HEALTHY) / HANG_NAME).exists()


def test_a_notice_costs_no_step_and_is_no_failure(sweep: Sweep):
    assert history(sweep.trial(WARNED)) == sweep.undisturbed(WARNED)
    steps = sweep.steps(WARNED)
    assert [step for _, step in steps] == list(range(STEPS))  # left between two reports, and nothing done again
    assert len({process for process, _ in steps[:3]}) == len({process for process, _ in steps[3:]}) == 1
    assert steps[2][0] != steps[3][0]
    assert preemptions(sweep.trial(WARNED)) == 1


def test_no_process_outlives_the_search(sweep: Sweep):
    processes = {int(process) for value in noises(7) for process, _ in sweep.steps(value)}
    assert len(processes) >= 6
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))


def test_every_trial_is_accounted_for(sweep: Sweep, tmp_path: Path):
    run = sweep.context.folder
    failed = {sweep.trial(value).name: reason for value, reason in sweep.failed.items()}
    write_trials_table(tmp_path / "trials.parquet", read_trials(run), failed, 2.0, sampled=read_sampled(run))
    table = pd.read_parquet(tmp_path / "trials.parquet").set_index("views.noise")
    assert table["status"].to_dict() == {
        KILLED: "done",
        HUNG: "done",
        WARNED: "done",
        DIVERGED: "failed",
        MISTAKEN: "failed",
        CRAMPED: "done",
        HEALTHY: "done",
    }
    assert table["reason"].dropna().to_dict() == sweep.failed
    assert table.index[-1] == DIVERGED  # it never reported
    assert table["val_auc"].isna().tolist() == [*[False] * 6, True]


def test_a_killed_worker_of_two_and_a_notice_to_one_of_them(folder: Path):
    sweep = Sweep(folder, "two", {KILLED: Fault({2: "kill", 4: "notice"}, rank=1)}, workers=2)
    sweep.run([KILLED], concurrent=1)
    assert not sweep.failed
    assert history(sweep.trial(KILLED)) == sweep.undisturbed(KILLED)
    for rank in (0, 1):
        steps = [step for _, step in sweep.steps(KILLED, rank)]
        # The partner may have got further when the worker was killed; after notice both leave at the same step.
        assert steps in ([0, 1, 2, 2, 3, 4, 5], [0, 1, 2, 3, 2, 3, 4, 5])
        last, first = sweep.steps(KILLED, rank)[-3], sweep.steps(KILLED, rank)[-2]
        assert (last[1], first[1]) == (3, 4)
        assert last[0] != first[0]
    processes = {process for rank in (0, 1) for process, _ in sweep.steps(KILLED, rank)}
    assert len(processes) == 6
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))


def test_images_that_can_not_be_decoded_anew_are_one_line(folder: Path, tmp_path: Path):
    """What Ray does with a block that a lost node held: it runs the task again that read the dataset."""
    shutil.copytree(folder / "a", tmp_path / "a")
    shard = open_dataset(tmp_path / "a").shard_paths[0]
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(UserError, match=r"decoded anew \(FileNotFoundError: .*shard.*\): put the dataset back"):
        Feed((ray.remote(num_cpus=0)(pq.read_table).remote(str(shard)),), 32, 1).open()


def test_a_node_that_comes_after_the_dataset_went_says_so(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "a", tmp_path / "a")
    dataset = open_dataset(tmp_path / "a")
    here, new = (Feed(MappedFile(Selection(dataset, (), 32), str(tmp_path / node)), 32, 1) for node in ("here", "new"))
    pixels = here.open()
    dataset.shard_paths[0].unlink()
    assert len(here.open()) == len(pixels) == dataset.manifest.images
    with pytest.raises(UserError, match=r"is missing or damaged: run the conversion again"):
        new.open()
    shutil.rmtree(tmp_path / "a")
    assert len(here.open()) == len(pixels)
    with pytest.raises(UserError, match="no converted dataset"):
        new.open()
