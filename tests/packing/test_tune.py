"""What packing measures, what it recommends, and that its processes end. How fast anything is, is not tested."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from scarce.command_line import parse
from scarce.config import PRESETS, PretrainConfig
from scarce.data.pixels import Pixels
from scarce.errors import UserError
from scarce.packing import packed_trials
from scarce.packing import tune as module
from scarce.packing.config import PackingConfig
from scarce.packing.packed_trials import (
    OutOfMemory,
    Packing,
    Trials,
    _run_trial,
    made_up_pixels,
    ran_out_of_memory,
    start_trials,
    step_ends,
    window_rates,
)
from scarce.packing.tune import Row, candidate_sizes, make_recipe, measure, recommend, share_out, tune_packing
from scarce.pretrain import Recipe, count_steps
from scarce.resources import plan_resources

CONFIG = PackingConfig(training=PretrainConfig(image_size=32, batch_size=16), trials_at_once=(1,), seconds=0.1)
RECIPE = make_recipe(CONFIG, 16, 100)
PACKING = Packing(at_once=1, batch_size=16, cpus=1.0, gpus=0.0)
CPU = torch.device("cpu")
STEP = 0.5  # seconds on the clock of `steady`


def steady(recipe: Recipe, images: Pixels, device: torch.device) -> Iterator[float]:
    """Every step takes half a second, on a clock of its own; which of two trials began earlier is their number."""
    offset = 0.25 * (os.getpid() % 2)
    for step in itertools.count():
        assert (torch.get_num_threads(), len(images), images.shape) == (1, 90, (32, 32))
        time.sleep(0.001)
        yield offset + STEP * step


def out_of_memory(recipe: Recipe, images: Pixels, device: torch.device) -> Iterator[float]:
    yield 0.0
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def broken(recipe: Recipe, images: Pixels, device: torch.device) -> Iterator[float]:
    yield 0.0
    raise ValueError("a wheel came off")


def refused(recipe: Recipe, images: Pixels, device: torch.device) -> Iterator[float]:
    raise UserError("no such wheel")
    yield


def test_every_step_of_every_trial_counts_for_a_batch():
    one, two = [0.0, 1.0, 2.0, 3.0, 6.0], [0.0, 2.0, 4.0, 6.0]
    assert window_rates([one], 32, 1) == pytest.approx((4 * 32 / 6,))
    assert window_rates([one, two], 32, 1) == pytest.approx(((4 + 3) * 32 / 6,))
    # Three steps of the one and one and a half of the other, then one and one and a half.
    assert window_rates([one, two], 32, 2) == pytest.approx((4.5 * 32 / 3, 2.5 * 32 / 3))


def test_only_the_time_in_which_all_trained_counts():
    early, late = [0.0, 1.0, 2.0, 3.0], [1.5, 2.5, 3.5, 4.5]
    assert window_rates([early, late], 8, 3) == pytest.approx((16.0,) * 3)
    rng = np.random.default_rng(0)
    ends = [np.cumsum(rng.uniform(0.1, 1, 40)) + rng.uniform(0, 2) for _ in range(3)]
    start, stop = max(e[0] for e in ends), min(e[-1] for e in ends)
    images = 0.0
    for trial in ends:
        for begin, end in itertools.pairwise(trial):
            images += 8 * max(0.0, min(end, stop) - max(begin, start)) / (end - begin)
    assert window_rates(ends, 8, 1) == pytest.approx((images / (stop - start),))
    assert np.mean(window_rates(ends, 8, 4)) == pytest.approx(images / (stop - start))


def test_trials_train_together_and_end_with_the_block_whatever_ends_it():
    packing = replace(PACKING, at_once=2)
    processes = []

    def interrupted() -> None:
        with start_trials(packing, RECIPE, 90, 32, steady) as trials:
            processes.extend(multiprocessing.active_children())
            for seconds in (2.0, 5.0):
                ends, peaks = trials.train(seconds)
                assert [trial[-1] - trial[0] >= seconds for trial in ends] == [True, True]
                for trial in ends:
                    np.testing.assert_allclose(np.diff(trial), STEP)
                # Two trials, 16 images each in half a second.
                assert window_rates(ends, packing.batch_size, 3) == pytest.approx((2 * 16 / STEP,) * 3)
                assert all(50e6 < peak < 8e9 for peak in peaks)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("steps", "error", "words"),
    [
        (out_of_memory, OutOfMemory, "2.00 GiB"),
        (broken, UserError, r"1 trial\(s\) at once with batch size 16: .*ValueError: a wheel came off \(test_tune"),
        (refused, UserError, "a trial failed: no such wheel$"),
    ],
)
def test_a_trial_that_fails_says_so(steps, error, words):
    ours, theirs = multiprocessing.Pipe()
    _run_trial(theirs, PACKING, RECIPE, 90, 32, steps)
    with pytest.raises(error, match=words):
        Trials(PACKING, [(None, ours)]).wait()


@pytest.mark.parametrize(
    ("end", "arguments", "error"),
    [(os._exit, (3,), UserError), (signal.raise_signal, (signal.SIGKILL,), OutOfMemory)],
)
def test_a_process_that_dies_is_one_clear_error_or_killed_for_memory(end, arguments, error):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=end, args=arguments)
    process.start()
    theirs.close()
    with pytest.raises(error, match="at once with batch size 16") as caught:
        Trials(PACKING, [(process, ours)]).wait()
    if error is UserError:
        assert "exit code 3" in str(caught.value)


def test_memory_that_runs_out_is_a_row_not_an_error(monkeypatch):
    def start(*_: object) -> None:
        raise OutOfMemory

    monkeypatch.setattr(module, "start_trials", start)
    row = measure(PACKING, RECIPE, 90, 32, 960, 0.1)
    assert row == Row(PACKING, (), 0, 960)
    assert module.line(row).split() == ["1", "0", "1", "1", "16", "out", "of", "memory"]


def test_what_says_that_memory_ran_out():
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**60, np.uint8)
    assert ran_out_of_memory(torchs.value)
    assert ran_out_of_memory(numpys.value)
    assert ran_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out_of_memory(ValueError("out of memory"))


def test_a_step_is_one_of_pretraining_with_the_whole_batch(monkeypatch):
    seen = []

    def train_step(wrapped, method, optimiser, recipe, views, device):
        seen.append([tuple(view.shape) for view in views])
        return real(wrapped, method, optimiser, recipe, views, device)

    real = packed_trials.train_step
    monkeypatch.setattr(packed_trials, "train_step", train_step)
    ends = list(itertools.islice(step_ends(RECIPE, made_up_pixels(90, 64), CPU), 7))
    assert seen == [[(16, 1, 32, 32)] * 2] * 7
    assert ends == sorted(ends)


def test_made_up_images_are_noise_and_all_different():
    images = made_up_pixels(300, 32)
    assert (len(images), images.shape) == (300, (32, 32))
    drawn = images.gather(np.arange(300))
    assert len(np.unique(drawn.reshape(300, -1), axis=0)) == 300
    assert drawn.mean(axis=(1, 2)) == pytest.approx(np.full(300, 127.5), abs=15)
    assert drawn.std(axis=(1, 2)) == pytest.approx(np.full(300, 73.9), abs=8)


@pytest.mark.parametrize("gpus", [0, 1, 2])
@pytest.mark.parametrize("cores", [1, 2, 3, 8])
@pytest.mark.parametrize("at_once", range(1, 10))
def test_the_sweep_places_as_many_trials_as_were_measured(at_once, cores, gpus):
    packing = share_out(at_once, 64, cores, gpus)
    search = parse(packing.flags.split(), PRESETS, "").search
    assert (search.cpus_per_trial, search.gpus_per_trial or 0.0) == (packing.cpus, packing.gpus)
    nodes = [{"CPU": float(cores), "GPU": float(gpus)}]
    plan = plan_resources(replace(search, trials=99), nodes)
    assert plan.concurrent == at_once * max(1, gpus)
    assert packing.threads == max(1, cores // (at_once * max(1, gpus)))


def test_flags():
    assert share_out(2, 128, cores=2, gpus=0).flags == "--concurrent 2 --cpus-per-trial 1 --batch-size 128"
    assert share_out(4, 128, cores=2, gpus=0).flags == "--concurrent 4 --cpus-per-trial 0.5 --batch-size 128"
    assert share_out(4, 384, cores=8, gpus=1).flags == "--gpus-per-trial 0.25 --cpus-per-trial 2 --batch-size 384"


def row(at_once: int, batch_size: int, *rates: float, trial_images: int = 3600) -> Row:
    """With 3,600 images a trial, trials an hour are images a second."""
    return Row(Packing(at_once, batch_size, 1.0, 0.0), rates, 0, trial_images)


@pytest.mark.parametrize(
    ("rows", "chosen", "others"),
    [
        ([row(1, 64, 90, 91, 92), row(2, 64, 99, 100, 101), row(4, 64, 95, 96, 97)], 1, []),
        ([row(1, 64, 90, 91, 98), row(2, 64, 97, 100, 101), row(4, 64, 95, 96, 97)], 0, [1, 2]),  # 4 just touches
        ([row(2, 32, 99, 100, 101), row(2, 64, 95, 96, 99.5)], 1, [0]),  # the config's batch size
        ([row(2, 32, 97, 98, 99), row(2, 128, 96, 100, 101)], 1, [0]),  # neither is: the fastest
        ([row(1, 64, 50, 51, 52), row(4, 64)], 0, []),
        ([row(1, 64, 90, 91, 92), row(2, 64, 99, 100, 101, trial_images=7200)], 0, []),  # images are not trials
    ],
)
def test_the_recommendation_is_the_fewest_at_once_that_cannot_be_told_from_the_best(rows, chosen, others):
    for order in (rows, rows[::-1]):
        found, alike = recommend(order, own_batch_size=64)
        assert found is rows[chosen]
        assert sorted(map(id, alike)) == sorted(id(rows[other]) for other in others)


def test_nothing_fits():
    with pytest.raises(UserError, match="out of memory"):
        recommend([row(1, 64), row(2, 64)], 64)


def test_batch_sizes_to_try():
    assert candidate_sizes(CONFIG, 90) == [8, 16, 32]
    assert candidate_sizes(CONFIG, 20) == [8, 16]  # twice as many are not there
    assert candidate_sizes(replace(CONFIG, batch_sizes=(48, 24, 48)), 90) == [24, 48]
    for config, images in ((replace(CONFIG, batch_sizes=(24, 91)), 90), (CONFIG, 7), (CONFIG, 1)):
        with pytest.raises(UserError, match=r"images"):
            candidate_sizes(config, images)


def test_the_table_and_its_last_line(monkeypatch, capsys):
    def measured(packing: Packing, recipe: Recipe, images: int, side: int, trial_images: int, seconds: float) -> Row:
        assert (images, side, seconds) == (900, 48, 0.1)
        assert recipe.pretrain == replace(CONFIG.training, batch_size=packing.batch_size)
        assert trial_images == packing.batch_size * count_steps(recipe.pretrain, 1000)
        if packing.batch_size == 32:
            return Row(packing, (), 0, trial_images)
        rate = 100.0 * packing.at_once + packing.batch_size
        return Row(packing, (rate, rate + 1, rate + 2), 10**9, trial_images)

    monkeypatch.setattr(module, "measure", measured)
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(module.joblib, "cpu_count", lambda: 2)
    chosen = tune_packing(replace(CONFIG, trials_at_once=(2, 1)), 1000, 48)
    assert (chosen.packing.at_once, chosen.packing.batch_size) == (2, 16)
    printed = capsys.readouterr().out.splitlines()
    table = [text.split() for text in printed if text.split()[0].isdigit()]
    assert [(cells[0], cells[4]) for cells in table] == [(k, b) for k in "12" for b in ("8", "16", "32")]
    steps = 6 * (900 // 16)
    assert table[4][5:8] == ["108.5", "217.0", f"{3600 * 217 / (steps * 16):.4g}"]
    assert table[5][5:] == ["out", "of", "memory"]
    assert printed[-1] == "--concurrent 2 --cpus-per-trial 1 --batch-size 16"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"method": "mocco"}, "mocco"), ({"backbone": "vit_small", "image_size": 40}, "--image-size 40")],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(changes, words, monkeypatch):
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match=words):
        tune_packing(replace(CONFIG, training=replace(CONFIG.training, **changes)), 1000, 48)


@pytest.mark.parametrize(
    "changes", [{"trials_at_once": (0,)}, {"trials_at_once": ()}, {"batch_sizes": (1,)}, {"seconds": 0.0}]
)
def test_settings_that_cannot_be(changes):
    with pytest.raises(UserError, match=next(iter(changes)).replace("_", "-")):
        replace(CONFIG, **changes)


def test_ctrl_c_ends_everything_with_one_line():
    code = (
        "from scarce.errors import run_or_exit\n"
        "from scarce.packing.tune import tune_packing\n"
        "from scarce.packing.config import PackingConfig\n"
        "run_or_exit(lambda: tune_packing(PackingConfig(trials_at_once=(2,)), 1000, 32))"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert command.stdout is not None
    while not command.stdout.readline().lstrip().startswith("at once"):
        assert command.poll() is None
    time.sleep(0.5)  # the trials import torch, the worst moment: Python's own handler would print a traceback each
    os.killpg(command.pid, signal.SIGINT)
    _, errors = command.communicate(timeout=60)
    assert (command.returncode, errors) == (130, "scarce: interrupted\n")
    for _ in range(100):  # multiprocessing's resource tracker ends after its owner
        try:
            os.killpg(command.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process is left")
