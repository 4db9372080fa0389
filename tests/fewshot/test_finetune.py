"""Fine-tuning starts as the prototype probe, trains what it is told to and nothing else, and repeats exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fewshot_cases import make_task

from scarce.backbones import Backbone, create_backbone, small_resnet
from scarce.errors import UserError
from scarce.fewshot import finetune, partial
from scarce.fewshot.auc import auc
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.features import extract_features
from scarce.fewshot.finetune import SEARCH_SPACE, FinetuneConfig, episodes_at_once, finetune_task, fit
from scarce.fewshot.partial import Inputs, cut
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.task import Task
from scarce.study.optuna_space import to_distributions

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def backbone(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    network = small_resnet((4, 4, 8, 8)).eval()
    with torch.no_grad():  # statistics that are not those of a fresh batch norm
        network.train()(torch.randn(32, 1, 16, 16))
    return network.eval()


def lit_task(shots: tuple[int, ...] = (2, 12), split: str = "test") -> Task:
    """Positives have a bright patch."""
    task = make_task(np.random.default_rng(0), findings=1, shots=shots, seeds=2, positives=20, split=split)
    task.images[:] = task.images // 8 + 60
    task.images[task.labels[:, 0], 4:8, 4:8] += 25
    return task


@pytest.mark.parametrize("how", ["l2", "standardise"])
def test_without_a_step_it_is_the_prototype_probe(how):
    task, network = lit_task(), backbone()
    ours = finetune_task(network, task, FinetuneConfig(steps=0, normalise=how), 16, CPU)
    features = extract_features(network, task.images, 16, CPU)
    probe = score_task(task, features, ProbeConfig(kind="prototype", normalise=how))
    for mine, theirs in zip(ours.values, probe.values, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine / scale, theirs / scale, atol=1e-5)


def test_training_raises_the_auc_and_repeats_to_the_bit():
    task, network = lit_task(), backbone()
    config = FinetuneConfig(unfreeze_from=0, head_lr=1e-2, backbone_lr=3e-3, steps=30)
    before = finetune_task(network, task, replace(config, steps=0), 16, CPU)
    one, again = (finetune_task(network, task, config, 16, CPU) for _ in range(2))
    np.testing.assert_array_equal(one.values[0], again.values[0])
    after, start = (auc(scores.values[0], task.truth(0))[1].mean() for scores in (one, before))
    assert after > start + 0.02


@pytest.mark.parametrize(
    ("config", "trained"),
    [
        (FinetuneConfig(unfreeze_from=4), set()),
        (FinetuneConfig(unfreeze_from=3), {"stages.3"}),
        (FinetuneConfig(unfreeze_from=1), {"stages.1", "stages.2", "stages.3"}),
        (FinetuneConfig(unfreeze_from=1, only_stage=True), {"stages.1"}),
        (FinetuneConfig(unfreeze_from=0), {"stem", "stages.0", "stages.1", "stages.2", "stages.3"}),
        (FinetuneConfig(unfreeze_from=0, only_stage=True), {"stem", "stages.0"}),
    ],
)
def test_what_is_trained_is_what_was_asked_for(config, trained):
    task, network = lit_task((4,)), backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parts = config.trained_parts()
    frozen, classifier = cut(network, parts, "l2", batch_norm_affine=True, batch_statistics=False)
    inputs = Inputs(frozen, task.images, 16, CPU)
    episodes = list(task.episodes)
    start = classifier.start(inputs, [e.positives for e in episodes], [e.negatives for e in episodes])
    state = fit(classifier, inputs, episodes, replace(config, backbone_lr=1e-2, steps=3), 16)
    names = ["stem", *(f"stages.{i}" for i in range(4)), "tail"]
    moved = set()
    for name, value in state.items():
        if name.startswith("rest."):
            part = names[parts.start + int(name.split(".")[1])]
            if not torch.equal(value, start[name]):
                moved.add(part)
    assert moved == trained
    assert not torch.equal(state["head.weight"], start["head.weight"])
    assert not any("running" in name for name in state)  # frozen batch norm
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_with_few_shots_the_head_alone_is_trained():
    task, network = lit_task(), backbone()
    config = FinetuneConfig(unfreeze_from=0, batch_norm="batch", augment=True, steps=3)
    mixed = finetune_task(network, task, replace(config, backbone_from=12), 16, CPU).values[0]
    head = finetune_task(network, task, FinetuneConfig(unfreeze_from=4, steps=3), 16, CPU).values[0]
    whole = finetune_task(network, task, config, 16, CPU).values[0]
    np.testing.assert_array_equal(mixed[0], head[0])  # 2 shots
    np.testing.assert_array_equal(mixed[1], whole[1])  # 12 shots
    assert not np.array_equal(whole[0], head[0])


def test_batch_statistics_are_kept_for_held_out_images():
    task, network = lit_task((4,)), backbone()
    config = FinetuneConfig(unfreeze_from=0, batch_norm="batch", steps=3, validation_from=0)
    frozen, classifier = cut(network, config.trained_parts(), "l2", batch_norm_affine=True, batch_statistics=True)
    inputs = Inputs(frozen, task.images, 16, CPU)
    episodes = list(task.episodes[:1])
    state = fit(classifier, inputs, episodes, config, 16)
    running = {name: value for name, value in state.items() if "running_mean" in name}
    assert running
    assert all(not torch.equal(value[0], dict(classifier.named_buffers())[name]) for name, value in running.items())
    assert np.isfinite(finetune_task(network, task, config, 16, CPU).values[0]).all()


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(unfreeze_from=2, backbone_lr=1e-3, steps=5),
        FinetuneConfig(unfreeze_from=4, steps=5),
        FinetuneConfig(unfreeze_from=0, backbone_lr=1e-3, steps=3, batch_norm="batch", augment=True, batch_size=6),
    ],
    ids=["stages", "head", "everything"],
)
def test_how_many_episodes_train_side_by_side_makes_no_difference(config):
    task, network = lit_task(), backbone()
    alone, together = (finetune_task(network, task, config, 16, CPU, at_once=count) for count in (1, 4))
    for one, other in zip(alone.values, together.values, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-3)


def test_memory_says_how_many_episodes_train_side_by_side(monkeypatch):
    task, network = lit_task(), backbone()

    def at_once(config: FinetuneConfig) -> int:
        frozen, classifier = cut(network, config.trained_parts(), "l2", batch_norm_affine=True, batch_statistics=False)
        return episodes_at_once(classifier, Inputs(frozen, task.images, 16, CPU), task.episodes[0], config)

    head = FinetuneConfig(unfreeze_from=4)
    assert at_once(FinetuneConfig(unfreeze_from=3)) == 1  # on a CPU
    many = at_once(head)
    monkeypatch.setattr(finetune, "GROUP_BYTES", finetune.GROUP_BYTES // 1024)
    assert 1 < at_once(head) < many / 1000
    monkeypatch.setattr(finetune, "GROUP_BYTES", 1)
    assert at_once(head) == 1


def test_what_is_not_kept_is_computed_again(monkeypatch):
    task, network = lit_task(), backbone()
    config = FinetuneConfig(unfreeze_from=3, steps=4)
    kept = finetune_task(network, task, config, 16, CPU)
    monkeypatch.setattr(partial, "CACHE_BYTES", 0)
    for one, other in zip(kept.values, finetune_task(network, task, config, 16, CPU).values, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


def test_early_stopping_looks_at_a_fifth_of_the_few_labels_only():
    assert [FinetuneConfig().held_out(shots) for shots in (1, 5, 9, 10, 23, 50)] == [0, 0, 0, 2, 4, 10]
    assert FinetuneConfig(validation_from=0).held_out(50) == 0
    task, network = lit_task(), backbone()
    before = finetune_task(network, task, FinetuneConfig(steps=6), 16, CPU)
    rows = np.unique(np.concatenate(task.evaluated))
    relabelled = task.labels.copy()
    relabelled[rows] = ~relabelled[rows]
    after = finetune_task(network, replace(task, labels=relabelled), FinetuneConfig(steps=6), 16, CPU)
    np.testing.assert_array_equal(before.values[0], after.values[0])


def test_early_stopping_uses_the_step_with_the_lowest_loss_on_what_was_held_out():
    task, network = lit_task((12,)), backbone()
    config = FinetuneConfig(unfreeze_from=4, head_lr=3.0, steps=20, schedule="constant", temperature=1.0)
    frozen, classifier = cut(network, config.trained_parts(), "l2", batch_norm_affine=True, batch_statistics=False)
    inputs = Inputs(frozen, task.images, 16, CPU)
    episode = task.episodes[0]
    held = config.held_out(12)
    rows = np.concatenate([episode.positives[12 - held :], episode.negatives[12 - held :]])

    def loss(state: dict[str, torch.Tensor]) -> float:
        logits = classifier.logits(state, inputs[rows][None])[0].detach()
        sign = torch.tensor([1.0] * held + [-1.0] * held)
        return float(torch.nn.functional.softplus(-sign * logits).mean())

    start = classifier.start(inputs, [episode.positives[: 12 - held]], [episode.negatives[: 12 - held]])
    kept = loss(fit(classifier, inputs, [episode], config, 16))
    # Every prefix of a run at a constant rate is a run of fewer steps: the best of those looked at is what is kept.
    looked_at = [loss(start)]
    for steps in range(2, 21, 2):
        last = replace(config, steps=steps, validation_from=0)
        shorter = replace(
            episode, shots=12 - held, positives=episode.positives[: 12 - held], negatives=episode.negatives[: 12 - held]
        )
        looked_at.append(loss(fit(classifier, inputs, [shorter], last, 16)))
    assert kept == pytest.approx(min(looked_at), rel=1e-4)
    assert kept < looked_at[-1]


def test_the_first_seeds_alone_score_as_they_do_among_all():
    task, network = lit_task(), backbone()
    config = FinetuneConfig(steps=3)
    some, every = (finetune_task(network, task, config, 16, CPU, seeds=seeds) for seeds in (1, None))
    assert some.values[0].shape[:2] == (2, 1)
    np.testing.assert_array_equal(some.values[0], every.values[0][:, :1])


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "vit_small"])
def test_every_backbone_can_be_fine_tuned(name):
    task = make_task(np.random.default_rng(0), findings=1, shots=(2,), seeds=2, pool=8, positives=3, negatives=4)
    network, config = create_backbone(name, 0).eval(), FinetuneConfig(steps=2)
    scores, together = (finetune_task(network, task, config, 32, CPU, at_once=count) for count in (1, 2))
    assert np.isfinite(scores.values[0]).all()
    assert len(np.unique(scores.values[0])) > 1
    np.testing.assert_allclose(scores.values[0], together.values[0], atol=1e-3)


def test_augmentation_is_seeded_and_changes_training():
    task, network = lit_task((4,)), backbone()
    config = FinetuneConfig(unfreeze_from=0, augment=True, steps=4, backbone_lr=1e-3)
    one, again = (finetune_task(network, task, config, 16, CPU) for _ in range(2))
    np.testing.assert_array_equal(one.values[0], again.values[0])
    plain = finetune_task(network, task, replace(config, augment=False), 16, CPU)
    assert not np.array_equal(one.values[0], plain.values[0])


def test_divergence_names_the_episode():
    task = lit_task((4,))
    with pytest.raises(FloatingPointError, match="4-shot episode of 'finding 0'"):
        finetune_task(backbone(), task, FinetuneConfig(unfreeze_from=0, backbone_lr=1e30, steps=5), 16, CPU)


@pytest.mark.parametrize(
    "values",
    [
        {"unfreeze_from": 5},
        {"batch_size": 3},
        {"backbone_from": 0},
        {"temperature": 0.0},
        {"validation_from": 2},
        {"augment": True, "unfreeze_from": 2},
    ],
)
def test_settings_out_of_range_are_user_errors(values):
    with pytest.raises(UserError, match=next(iter(values))):
        FinetuneConfig(**values)


def test_the_search_space_is_of_its_settings():
    defaults = FinetuneConfig()
    for name, distribution in to_distributions(SEARCH_SPACE).items():
        assert distribution._contains(distribution.to_internal_repr(getattr(defaults, name))), name
