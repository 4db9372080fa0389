"""Gradient fine-tuning of a backbone on every episode of a task, starting as the nearest-prototype classifier."""

import math
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.backbones import Backbone
from scarce.errors import UserError
from scarce.fewshot.episodes import Episode
from scarce.fewshot.partial import Classifier, Inputs, State, cut
from scarce.fewshot.probe import Normalisation
from scarce.fewshot.task import Scores, Task
from scarce.files import stable_hash
from scarce.space import Choice, Dimension, Float
from scarce.views import ViewConfig, draw_parameters, make_views

STAGES = 4
CHECKS = 10  # of the held-out loss during one fine-tuning
GROUP_BYTES = 2**31  # most that episodes trained side by side may take

# Mild: a few labelled films are worth little where the finding may be cropped away.
AUGMENTATION = ViewConfig(crop_min=0.8, rotation=5.0, brightness=0.1, contrast=0.1, blur=0.0, noise=0.02)

# Not weight decay: in so few steps it shrinks a weight by less than a hundredth.
SEARCH_SPACE: dict[str, Dimension] = {
    "unfreeze_from": Choice((1, 2, 3, 4)),
    "only_stage": Choice((False, True)),
    "backbone_from": Choice((1, 5, 20)),
    "head_lr": Float(1e-4, 1e-1, log=True),
    "backbone_lr": Float(1e-5, 1e-2, log=True),
    "temperature": Float(0.01, 1.0, log=True),
    "normalise": Choice(("l2", "standardise")),
    "batch_norm": Choice(("frozen", "batch")),
    "validation_from": Choice((0, 10)),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """How a backbone is fine-tuned on a few labelled images. The head is always trained."""

    unfreeze_from: int = 3
    """First of the four stages (0 to 3) that is trained, with everything after it; 0 takes the stem along, 4 trains
    the head alone."""
    only_stage: bool = False
    """Train that stage and leave those after it as they are: surgical fine-tuning (Lee et al. 2023, "Surgical
    Fine-Tuning Improves Adaptation to Distribution Shifts"). The stem counts to stage 0, the last norm to stage 3."""
    backbone_from: int = 1
    """Shots from which on the backbone is trained; with fewer the head alone is. Rates that fit 50 films ruin
    the features for one."""
    head_lr: float = 3e-3
    """AdamW's learning rate of the linear head."""
    backbone_lr: float = 3e-4
    """AdamW's learning rate of the backbone's trained stages."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay of filters and matrices; biases and norms have none."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of both learning rates; cosine falls to 0 over the steps."""
    steps: int = 20
    """Updates; 0 leaves the nearest-prototype classifier."""
    batch_size: int = 16
    """Most images a step, even. A larger episode is shuffled and split into minibatches, half of them positives."""
    batch_norm: Literal["frozen", "batch"] = "frozen"
    """Statistics that the trained stages' batch norm uses. `frozen`: the running ones, never updated. `batch`: those of
    the training batch, with running ones kept for held-out images; for training from scratch and large changes."""
    batch_norm_affine: bool = True
    """Whether batch norm's scale and shift are trained."""
    normalise: Normalisation = "l2"
    """How the head sees features, as in the probe; `standardise` uses the pool's statistics before fine-tuning."""
    temperature: float = 0.1
    """Logits are divided by it in the loss: where it is small, images that are classified well soon cease to count."""
    augment: bool = False
    """Train on mildly augmented images. Needs unfreeze_from 0: what a frozen part makes of them can't be kept."""
    validation_from: int = 10
    """Shots from which on a fifth of either class (at least 2 images) of the episode is held out, and the step with the
    lowest loss on it is used. With fewer shots it is the last step; 0: always."""

    def __post_init__(self) -> None:
        if not 0 <= self.unfreeze_from <= STAGES:
            raise UserError(f"unfreeze_from must lie in [0, {STAGES}], got {self.unfreeze_from}")
        if self.backbone_from < 1:
            raise UserError(f"backbone_from must be at least 1 shot, got {self.backbone_from}")
        if self.batch_size < 2 or self.batch_size % 2:
            raise UserError(f"batch_size must be even and at least 2, got {self.batch_size}")
        if self.steps < 0 or min(self.head_lr, self.backbone_lr, self.weight_decay) < 0 or self.temperature <= 0:
            raise UserError(
                "steps, head_lr, backbone_lr and weight_decay must not be negative, and temperature must be positive; "
                f"got {self.steps}, {self.head_lr}, {self.backbone_lr}, {self.weight_decay} and {self.temperature}"
            )
        if self.validation_from and self.validation_from < 3:
            raise UserError(f"validation_from must be 0, or at least 3 to train on some; got {self.validation_from}")
        if self.augment and self.unfreeze_from:
            raise UserError(f"augment needs unfreeze_from 0, got {self.unfreeze_from}")

    def trained_parts(self) -> range:
        """Which of a backbone's six parts (stem, four stages, tail) are trained."""
        if self.unfreeze_from == STAGES:
            return range(STAGES + 2, STAGES + 2)
        last = self.unfreeze_from if self.only_stage else STAGES - 1
        first_part = self.unfreeze_from + 1 if self.unfreeze_from else 0
        return range(first_part, last + 2 if last < STAGES - 1 else STAGES + 2)

    def held_out(self, shots: int) -> int:
        """Images of either class that an episode of so many shots holds out."""
        return max(2, shots // 5) if self.steps and 0 < self.validation_from <= shots else 0


def finetune_task(
    backbone: Backbone,
    task: Task,
    config: FinetuneConfig,
    image_size: int,
    device: torch.device | str,
    seeds: int | None = None,
    at_once: int | None = None,
) -> Scores:
    """Fine-tune the backbone on every episode, always from the same weights, and score the held-out images.

    Args:
        backbone: left untouched.
        task: N images.
        config: how to train.
        image_size: pixels a side that the backbone gets.
        device: where to train.
        seeds: train only the episodes of the task's first so many seeds; None: of all.
        at_once: episodes trained side by side, which changes scores by rounding only. None: as many as `GROUP_BYTES`
            holds, but one on a CPU where filters are trained: there a batched network, whose convolutions are grouped,
            took 1.0 to 1.2 times as long as a loop.

    Returns:
        `values` float64 [shots, seeds, evaluated images] for every finding, the finding's logit. Without any step it is
        the squared distance to the negative prototype minus that to the positive one.

    Raises:
        FloatingPointError: an episode's loss or scores are not finite.
    """
    device = torch.device(device)
    if seeds is not None:
        kept = task.seeds[:seeds]
        task = replace(task, seeds=kept, episodes=tuple(e for e in task.episodes if e.seed in kept))
    scores = task.empty_scores()
    head_only = replace(config, unfreeze_from=STAGES, augment=False, batch_norm="frozen")
    few = [episode for episode in task.episodes if episode.shots < config.backbone_from]
    many = [episode for episode in task.episodes if episode.shots >= config.backbone_from]
    for how, episodes in ((head_only, few), (config, many)):
        if episodes:
            _finetune(backbone, task, episodes, how, image_size, device, at_once, scores)
    return scores


def _finetune(
    backbone: Backbone,
    task: Task,
    episodes: list[Episode],
    config: FinetuneConfig,
    image_size: int,
    device: torch.device,
    at_once: int | None,
    scores: Scores,
) -> None:
    """Train what the config says on each of the episodes, and write into `scores`."""
    frozen, classifier = cut(
        backbone,
        config.trained_parts(),
        config.normalise,
        batch_norm_affine=config.batch_norm_affine,
        batch_statistics=config.batch_norm == "batch",
    )
    classifier.to(device)
    inputs = Inputs(frozen.to(device), task.images, image_size, device)
    if config.normalise == "standardise":
        classifier.standardise(inputs, task.reference)
    for _, members in groupby(sorted(episodes, key=lambda e: e.shots), key=lambda e: e.shots):
        same_size = list(members)
        step = at_once or episodes_at_once(classifier, inputs, same_size[0], config)
        for start in range(0, len(same_size), step):
            group = same_size[start : start + step]
            _score(classifier, inputs, group, fit(classifier, inputs, group, config, image_size), task, scores)


def fit(
    classifier: Classifier, inputs: Inputs, episodes: list[Episode], config: FinetuneConfig, image_size: int
) -> State:
    """What training makes of E episodes of the same size, one set of weights each."""
    held_out = config.held_out(episodes[0].shots)
    count = episodes[0].shots - held_out  # of either class to train on; an episode's order is random already
    state = classifier.start(inputs, [e.positives[:count] for e in episodes], [e.negatives[:count] for e in episodes])
    if not config.steps:
        return state
    rows = [np.concatenate([e.positives[:count], e.negatives[:count]]) for e in episodes]
    check_rows = [np.concatenate([e.positives[count:], e.negatives[count:]]) for e in episodes]
    x = torch.stack([inputs[of_episode] for of_episode in rows])
    x_check = torch.stack([inputs[of_episode] for of_episode in check_rows])
    augment = _Augment(inputs, rows, episodes, image_size) if config.augment else None
    order = _minibatches(episodes, count, config)

    optimiser = _optimiser({name: state[name].requires_grad_() for name in classifier.trained}, config)
    best, lowest = state, torch.full((len(episodes),), math.inf, device=inputs.device)
    for step in range(config.steps + 1):
        if held_out and (step % max(1, config.steps // CHECKS) == 0 or step == config.steps):
            with torch.no_grad():
                loss = _require_finite(_loss(classifier.logits(state, x_check), config.temperature), episodes)
            better = loss < lowest
            lowest = torch.where(better, loss, lowest)
            best = {name: _where(better, value.detach(), best[name].detach()) for name, value in state.items()}
        if step == config.steps:
            break
        chosen = order[:, step].to(inputs.device)
        batch = augment(chosen) if augment else x[torch.arange(len(x), device=x.device)[:, None], chosen]
        classifier.learn(True)
        loss = _loss(classifier.logits(state, batch), config.temperature)
        classifier.learn(False)
        _set_rates(optimiser, config, step)
        optimiser.zero_grad()
        loss.sum().backward()  # over episodes: none has a part in another's gradient
        optimiser.step()
    return best if held_out else {name: value.detach() for name, value in state.items()}


def _score(
    classifier: Classifier, inputs: Inputs, episodes: list[Episode], state: State, task: Task, scores: Scores
) -> None:
    """Write the episodes' scores of their held-out images into `scores`."""
    for name, members in groupby(range(len(episodes)), key=lambda index: episodes[index].finding):
        among = list(members)
        part = {key: value[among[0] : among[-1] + 1] for key, value in state.items()}
        finding = task.findings.index(name)
        with torch.no_grad():
            logits = [
                classifier.logits(part, x.unsqueeze(0).expand(len(among), *x.shape))
                for x in (inputs[rows] for rows in inputs.chunks(task.evaluated[finding]))
            ]
        values = torch.cat(logits, dim=1)
        _require_finite(values.sum(dim=1), [episodes[index] for index in among])
        for index, of_episode in zip(among, values.double().cpu().numpy(), strict=True):
            scores.values[finding][task.place(episodes[index])[1]] = of_episode


def _loss(logits: Tensor, temperature: float) -> Tensor:
    """Mean logistic loss of every episode: logits [E, n], the first half of them of positives, to [E]."""
    sign = torch.ones(logits.shape[1], device=logits.device)
    sign[logits.shape[1] // 2 :] = -1
    return F.softplus(-sign * logits / temperature).mean(dim=1)


def _minibatches(episodes: list[Episode], count: int, config: FinetuneConfig) -> Tensor:
    """Which of an episode's training images (positives, then negatives, `count` each) each step sees: [E, steps, B]."""
    half = config.batch_size // 2
    if count <= half:
        return torch.arange(2 * count).expand(len(episodes), config.steps, -1)
    orders = []
    for episode in episodes:
        rng = _generator(episode)
        passes = math.ceil(config.steps * half / count)
        classes = [np.concatenate([rng.permutation(count) for _ in range(passes)]) + first for first in (0, count)]
        orders.append(np.concatenate([c[: config.steps * half].reshape(-1, half) for c in classes], axis=1))
    return torch.from_numpy(np.stack(orders))


def _generator(episode: Episode) -> np.random.Generator:
    return np.random.default_rng(int(stable_hash(["finetune", episode.finding, episode.shots, episode.seed]), 16))


class _Augment:
    """Random views of the episodes' images: indices [E, B] into each one's images to inputs [E, B, 1, S, S]."""

    def __init__(self, inputs: Inputs, rows: list[np.ndarray], episodes: list[Episode], image_size: int) -> None:
        self.images = torch.stack([torch.from_numpy(inputs.images[of_episode]) for of_episode in rows])
        self.images = self.images.to(inputs.device)
        self.image_size = image_size
        seeds = [int(_generator(episode).integers(2**62)) for episode in episodes]
        self.parameters = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.noise = [torch.Generator(inputs.device).manual_seed(seed) for seed in seeds]

    def __call__(self, chosen: Tensor) -> Tensor:
        views = []
        for images, rows, generator, noise in zip(self.images, chosen, self.parameters, self.noise, strict=True):
            drawn = draw_parameters(len(rows), self.image_size, AUGMENTATION, generator).to(images.device)
            views.append(make_views(images[rows], self.image_size, AUGMENTATION, drawn, noise))
        return torch.stack(views)


def _optimiser(parameters: State, config: FinetuneConfig) -> torch.optim.AdamW:
    groups = [
        {
            "params": [
                v for name, v in parameters.items() if name.startswith("head.") == head and (v.dim() > 2) == decays
            ],
            "head": head,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for head in (True, False)
        for decays in (True, False)
    ]
    return torch.optim.AdamW(groups, fused=True)


def _set_rates(optimiser: torch.optim.AdamW, config: FinetuneConfig, step: int) -> None:
    share = (1 + math.cos(math.pi * step / config.steps)) / 2 if config.schedule == "cosine" else 1.0
    for group in optimiser.param_groups:
        group["lr"] = share * (config.head_lr if group["head"] else config.backbone_lr)


def episodes_at_once(classifier: Classifier, inputs: Inputs, episode: Episode, config: FinetuneConfig) -> int:
    """How many episodes of this size to train side by side, from what autograd keeps of one of them in a step."""
    if inputs.device.type == "cpu" and len(config.trained_parts()):
        return 1
    count = min(episode.shots - config.held_out(episode.shots), config.batch_size // 2)
    state = classifier.start(inputs, [episode.positives[:1]], [episode.negatives[:1]])
    weights = {name: state[name].requires_grad_() for name in classifier.trained}
    kept = sum(4 * value.numel() * value.element_size() for value in weights.values())  # gradient and two moments too

    def note(saved: Tensor) -> Tensor:
        nonlocal kept
        kept += saved.numel() * saved.element_size()
        return saved

    rows = np.concatenate([episode.positives[:count], episode.negatives[:count]])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        classifier.logits(state, inputs[rows].unsqueeze(0))
    return max(1, GROUP_BYTES // kept)


def _where(choose: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(choose.view(-1, *[1] * (yes.dim() - 1)), yes, no)


def _require_finite(values: Tensor, episodes: list[Episode]) -> Tensor:
    """The values [E], one an episode, which must be finite."""
    broken = torch.nonzero(~values.isfinite()).flatten().tolist()
    if broken:
        episode = episodes[broken[0]]
        raise FloatingPointError(
            f"fine-tuning diverged in a {episode.shots}-shot episode of {episode.finding!r} with seed {episode.seed}: "
            "lower head_lr or backbone_lr, or raise temperature"
        )
    return values
