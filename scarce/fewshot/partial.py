"""A backbone cut in two for fine-tuning: a frozen part whose outputs are kept, and a trained part under a linear head.

The weights that are trained lie outside the modules, one set an episode, so that several episodes can be trained side
by side as one batched network (torch.func) and the modules stay as they were.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from scarce.backbones import Backbone
from scarce.fewshot.probe import Normalisation, find_scaling
from scarce.views import resize, to_input

CACHE_BYTES = 2**31  # most that the kept outputs may take
CHUNK_CPU, CHUNK_CUDA = 32, 256  # images a forward; on a CPU, maps of more leave the cache of a core

State = dict[str, Tensor]  # what differs between E episodes, by the classifier's names: [E, ...] each


def cut(
    backbone: Backbone, trained: range, normalise: Normalisation, batch_norm_affine: bool, batch_statistics: bool
) -> tuple[nn.Module, "Classifier"]:
    """A copy of the backbone in eval mode, as the part before the first of the six parts (stem, four stages, tail)
    that are trained, and the classifier that goes on from there.
    """
    network = copy.deepcopy(backbone).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    parts = [network.stem, *network.stages, network.tail]
    rest = nn.Sequential(*parts[trained.start :])
    head = Classifier(rest, network.feature_dim, len(trained), normalise, batch_norm_affine, batch_statistics)
    return nn.Sequential(*parts[: trained.start]), head


class Inputs:
    """What reaches the trained part: the frozen part's outputs, float32, by row numbers of images.

    Computed for all images at once and kept, if that takes at most `CACHE_BYTES`. If not (maps of a ResNet-50 at 224
    pixels take 0.4 to 3.2 MB an image), they are computed whenever they are asked for: an episode's own images once
    before it trains, the held-out ones chunk by chunk for every group of episodes trained together.
    """

    def __init__(self, frozen: nn.Module, images: np.ndarray, image_size: int, device: torch.device) -> None:
        self.images, self.device = images, device
        self._frozen, self._image_size = frozen, image_size
        self._chunk = CHUNK_CPU if device.type == "cpu" else CHUNK_CUDA
        one = self._compute(np.zeros(1, dtype=np.int64))
        fits = len(images) * one.numel() * one.element_size() <= CACHE_BYTES
        self._kept = self._compute(np.arange(len(images))) if fits else None

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        if self._kept is None:
            return self._compute(rows)
        return self._kept[torch.from_numpy(rows).to(self.device)]

    def chunks(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in parts small enough for one forward."""
        return np.array_split(rows, range(self._chunk, len(rows), self._chunk))

    @torch.no_grad()
    def _compute(self, rows: np.ndarray) -> Tensor:
        outputs = []
        for chunk in self.chunks(rows):
            images = torch.from_numpy(self.images[chunk]).to(self.device)
            outputs.append(self._frozen(channels_last(to_input(resize(images, self._image_size)))))
        return torch.cat(outputs)


class Classifier(nn.Module):
    """The trained part, the normalisation of its features, and a linear head: inputs [n, ...] to logits [n].

    Attributes:
        trained: names of the parameters that are trained, the head's among them.
        tracked: names of the buffers (running statistics) that training updates.
    """

    def __init__(
        self,
        rest: nn.Sequential,
        feature_dim: int,
        trained_parts: int,
        normalise: Normalisation,
        batch_norm_affine: bool,
        batch_statistics: bool,
    ) -> None:
        super().__init__()
        self.rest = rest
        self.head = nn.Linear(feature_dim, 1)
        self.normalise = normalise
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(feature_dim))
        norms = {
            f"rest.{index}.{name}" if name else f"rest.{index}": module
            for index in range(trained_parts)
            for name, module in rest[index].named_modules()
            if isinstance(module, nn.BatchNorm2d)
        }
        self._live = tuple(norms.values()) if batch_statistics else ()
        inside = ("head.", *(f"rest.{index}." for index in range(trained_parts)))
        self.trained = [
            name
            for name, _ in self.named_parameters()
            if name.startswith(inside) and (batch_norm_affine or name.rpartition(".")[0] not in norms)
        ]
        self.tracked = [name for name, _ in self.named_buffers() if self._live and name.rpartition(".")[0] in norms]
        self.eval()

    def learn(self, on: bool) -> None:
        """Whether batch norm takes the batch's statistics, where it is to do so while training.

        Dropout and stochastic depth stay off: the pretrained features had none, and a handful of images needs no more
        noise.
        """
        for norm in self._live:
            norm.train(on)

    def standardise(self, inputs: Inputs, reference: np.ndarray) -> None:
        """Take each feature's mean and spread from reference images, as `probe.normalise` does."""
        with torch.no_grad():
            x = torch.cat([self.rest(inputs[rows]) for rows in inputs.chunks(reference)]).float()
        scaling = find_scaling(x.cpu().numpy(), np.arange(len(x)), "standardise")
        self.mean = torch.from_numpy(scaling.centre).to(x)
        self.scale = torch.from_numpy(scaling.deviation).to(x)

    def features(self, x: Tensor) -> Tensor:
        """Inputs [n, ...] to the features that the head sees, [n, D]."""
        x = self.rest(x)
        return F.normalize(x, dim=1) if self.normalise == "l2" else (x - self.mean) / self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [n, ...] to logits [n]."""
        return self.head(self.features(x)).squeeze(1)

    def start(self, inputs: Inputs, positives: list[np.ndarray], negatives: list[np.ndarray]) -> State:
        """The weights as they are, once for each of E episodes, with heads that are nearest-prototype classifiers.

        The squared distance to the mean c₋ of the negatives minus that to the mean c₊ of the positives is
        2(c₊ − c₋)ᵀz + ‖c₋‖² − ‖c₊‖² (Snell et al. 2017, "Prototypical Networks", eq. 8, for two classes).
        """
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        names = [name for name in (*self.trained, *self.tracked) if not name.startswith("head.")]
        state = {
            name: tensors[name].unsqueeze(0).expand(len(positives), *tensors[name].shape).clone() for name in names
        }
        plus, minus = (torch.stack([self._prototype(inputs, rows) for rows in rows]) for rows in (positives, negatives))
        state["head.weight"] = 2 * (plus - minus).unsqueeze(1)
        state["head.bias"] = (minus.square().sum(1) - plus.square().sum(1)).unsqueeze(1)
        return state

    @torch.no_grad()
    def _prototype(self, inputs: Inputs, rows: np.ndarray) -> Tensor:
        return torch.cat([self.features(inputs[chunk]) for chunk in inputs.chunks(rows)]).mean(dim=0)

    def logits(self, state: State, x: Tensor) -> Tensor:
        """Inputs of E episodes [E, n, ...], each through its own weights, to logits [E, n]."""
        if len(x) == 1:
            alone = {name: value.squeeze(0) for name, value in state.items()}
            return functional_call(self, alone, (channels_last(x.squeeze(0)),)).unsqueeze(0)
        return torch.vmap(lambda weights, inputs: functional_call(self, weights, (inputs,)))(state, x)


def channels_last(x: Tensor) -> Tensor:
    """Maps [n, C, H, W] in the memory order in which CPUs convolve twice as fast; anything else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
