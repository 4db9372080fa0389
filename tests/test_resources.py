import pytest

from scarce import resources
from scarce.config import PretrainConfig, SearchConfig
from scarce.errors import UserError
from scarce.resources import check_disk, plan_resources
from scarce.settings import default_settings

LAPTOP = [{"CPU": 2.0}]
L4 = [{"CPU": 8.0, "GPU": 1.0}]


def test_a_laptop_runs_a_trial_a_cpu():
    plan = plan_resources(SearchConfig(trials=8), LAPTOP)
    assert (plan.gpus, plan.concurrent, plan.trial_resources) == (0, 2, {"cpu": 1.0})


def test_four_trials_share_one_l4():
    plan = plan_resources(SearchConfig(trials=8), L4)
    assert (plan.gpus, plan.concurrent) == (0.25, 4)
    assert plan.trial_resources == {"cpu": 1.0, "gpu": 0.25}


@pytest.mark.parametrize(("share", "at_once"), [(0.25, 4), (0.3, 3), (0.5, 2), (0.6, 1), (1.0, 1)])
def test_a_share_never_spans_two_gpus(share, at_once):
    nodes = [{"CPU": 8.0, "GPU": 2.0}]
    assert plan_resources(SearchConfig(trials=99, gpus_per_trial=share), nodes).concurrent == min(8, 2 * at_once)


def test_cpus_bound_concurrency_too():
    assert plan_resources(SearchConfig(trials=8, cpus_per_trial=3), L4).concurrent == 2


def test_no_more_at_a_time_than_trials():
    assert plan_resources(SearchConfig(trials=1), LAPTOP).concurrent == 1


def test_several_workers_leave_the_driver_almost_nothing():
    plan = plan_resources(SearchConfig(trials=8, workers_per_trial=2), LAPTOP)
    assert plan.concurrent == 1
    assert plan.trial_resources == {"cpu": resources.DRIVER_CPUS}
    assert plan.concurrent * (plan.workers * plan.cpus + resources.DRIVER_CPUS) <= 2


def test_all_drivers_fit_on_one_node_beside_its_workers():
    nodes = [{"CPU": 1.0}] * 40
    plan = plan_resources(SearchConfig(trials=99, workers_per_trial=2), nodes)
    assert plan.concurrent == 20
    assert plan.cpus + plan.concurrent * resources.DRIVER_CPUS <= 1 + 1e-9


def test_a_node_without_a_gpu_counts_for_nothing_where_trials_need_one():
    nodes = [{"CPU": 64.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 2.0}]
    plan = plan_resources(SearchConfig(trials=99), nodes)
    assert (plan.gpus, plan.concurrent) == (0.25, 4 + 2)
    assert [plan.holds_worker(node) for node in nodes] == [False, True, True]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (SearchConfig(cpus_per_trial=4), ["4 CPU", "2 CPU", "--cpus-per-trial"]),
        (SearchConfig(gpus_per_trial=0.25), ["0.25 GPU", "0 GPU", "--gpus-per-trial"]),
        (SearchConfig(workers_per_trial=3), ["3 worker(s)", "room for 2"]),
        (SearchConfig(concurrent=3), ["--concurrent 3", "room for 2", "--concurrent 2 or less"]),
    ],
)
def test_what_can_never_be_satisfied_fails_with_the_arithmetic(search, words):
    with pytest.raises(UserError) as caught:
        plan_resources(search, LAPTOP)
    assert all(word in str(caught.value) for word in words), caught.value


def test_disk_estimate_is_of_the_right_size(tmp_path, monkeypatch):
    import torch

    from scarce.pretrain import build_method, build_optimiser

    recipe = default_settings(PretrainConfig(), 2000).recipe
    method = build_method(recipe)
    optimiser = build_optimiser(method, recipe.optimiser, 128, torch.device("cpu"))
    for parameter in method.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    torch.save({"method": method.state_dict(), "optimiser": optimiser.state_dict()}, tmp_path / "one.pt")
    line = check_disk(tmp_path / "not" / "there", recipe, trials=10)
    estimate = float(line.split(" MB)")[0].rpartition(" ")[2]) * 1e6
    assert estimate == pytest.approx((tmp_path / "one.pt").stat().st_size, rel=0.05)

    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**6})())
    with pytest.raises(UserError, match="--out"):
        check_disk(tmp_path, recipe, trials=10)
