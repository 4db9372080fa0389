"""Which pixels move a probe's score: Grad-CAM and occlusion, both captum's, on a backbone with a probe."""

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, Occlusion
from torch import Tensor, nn

from scarce.audit.subject import FrozenPipeline
from scarce.fewshot.probe import find_scaling, fit_probe
from scarce.fewshot.task import Task
from scarce.views import resize, to_input

PATCH, STEP = 1 / 8, 1 / 16  # of the occluding square, shares of the side
AT_A_TIME = 64  # films in a forward pass


class ProbedNetwork(nn.Module):
    """A backbone and one episode's probe as one network: float32 [N, 1, S, S] to scores float64 [N]."""

    def __init__(self, pipeline: FrozenPipeline, task: Task, finding: int) -> None:
        """The probe of the finding's first episode."""
        super().__init__()
        self.backbone, self.image_size, self.device = pipeline.backbone, pipeline.image_size, pipeline.device
        self.probe = pipeline.probe
        episode = next(one for one in task.episodes if one.finding == task.findings[finding])
        rows = np.concatenate([episode.positives, episode.negatives])
        needed = np.concatenate([rows, task.reference])
        features = pipeline.features(task.images, self.probe.uses_positions)[needed]
        scaling = find_scaling(features, np.arange(len(rows), len(needed)), self.probe.normalise)
        self.centre, self.deviation = (
            torch.from_numpy(values).to(self.device) for values in (scaling.centre, scaling.deviation)
        )
        positive = torch.arange(len(rows), device=self.device)[None] < episode.shots
        training = self._normalised(torch.from_numpy(features[: len(rows)]).to(self.device))
        self.scorer = fit_probe(training[None], positive, self.probe)[0]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The probe's scores."""
        features = self.backbone.positions(x) if self.probe.uses_positions else self.backbone(x)
        return self.scorer(self._normalised(features))

    def input(self, images: np.ndarray) -> Tensor:
        """What the network is shown of films uint8 [N, H, W]."""
        return to_input(resize(torch.from_numpy(images).to(self.device), self.image_size))

    def _normalised(self, features: Tensor) -> Tensor:
        """As `probe.find_scaling` has it, with a gradient."""
        x = (features.double() - self.centre) / self.deviation
        if self.probe.normalise == "l2":
            pooled = x.mean(dim=1, keepdim=True) if self.probe.uses_positions else x
            norm = pooled.norm(dim=-1, keepdim=True)
            x = x / torch.where(norm > 0, norm, 1)
        return x


def grad_cam(network: ProbedNetwork, images: np.ndarray) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) of the last stage's maps, for a higher score.

    Args:
        network: of a convolutional backbone.
        images: uint8 [N, S, S].

    Returns:
        float32 [N, S, S], at least 0, enlarged from the maps' few cells.
    """
    explain = LayerGradCam(network, network.backbone.stages[-1])
    maps = []
    for start in range(0, len(images), AT_A_TIME):
        x = network.input(images[start : start + AT_A_TIME])
        cells = explain.attribute(x, relu_attributions=True).detach().float()
        maps.append(F.interpolate(cells, size=images.shape[1:], mode="bilinear").squeeze(1).cpu().numpy())
    return np.concatenate(maps)


def occlusion(network: ProbedNetwork, images: np.ndarray) -> np.ndarray:
    """How far the score falls when a square is blurred away (Zeiler & Fergus 2014, section 4.2).

    Blurred and not grayed (Fong & Vedaldi 2017, section 4.1): a gray square on a black border would be news to the
    network.

    Args:
        network: of any backbone.
        images: uint8 [N, S, S].

    Returns:
        float32 [N, S, S], at least 0: the mean fall over the squares that cover a pixel, where that is a fall.
    """
    size = network.image_size
    patch, step = max(1, round(PATCH * size)), max(1, round(STEP * size))
    explain = Occlusion(network)
    maps = []
    with torch.inference_mode():
        for image in images:
            x = network.input(image[None])
            fall = explain.attribute(
                x,
                sliding_window_shapes=(1, patch, patch),
                strides=(1, step, step),
                baselines=F.avg_pool2d(x, 2 * patch + 1, stride=1, padding=patch, count_include_pad=False),
                perturbations_per_eval=AT_A_TIME,
            )
            enlarged = F.interpolate(fall.float(), size=images.shape[1:], mode="bilinear")
            maps.append(enlarged.clamp(min=0).squeeze(1).cpu().numpy())
    return np.concatenate(maps)
