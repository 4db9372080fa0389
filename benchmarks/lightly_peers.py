"""The peer of training_step.py: lightly's modules and transforms in a plain loop, as its examples put them together.

Three channels, PNG files decoded by a DataLoader's workers, `torchvision.models` without their last layer, the
optimisers and the precision of `scarce`'s own step. lightly 1.6 has no SparK: that one is the authors' way
(github.com/keyu-tian/SparK) in a few lines, with dense convolutions followed by a mask and batch norm on the visible
positions, picked out by `nonzero` and put back.
"""

import copy
import io
import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
import torchvision
from lightly.loss import BarlowTwinsLoss, NTXentLoss
from lightly.models.modules import BarlowTwinsProjectionHead, MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.moco_transform import MoCoV2Transform
from lightly.transforms.utils import IMAGENET_NORMALIZE
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from scarce.methods.spark import Decoder
from scarce.pretrain import Recipe, autocast


class PngFiles(Dataset[list[Tensor]]):
    """So many images from PNG files in memory, over and over, each as a list of views."""

    def __init__(self, files: Sequence[bytes], count: int, recipe: Recipe) -> None:
        self.files, self.count = files, count
        self.transform = transform_of(recipe)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Tensor]:
        views: list[Tensor] = self.transform(Image.open(io.BytesIO(self.files[index % len(self.files)])).convert("RGB"))
        return views


def transform_of(recipe: Recipe) -> nn.Module | MoCoV2Transform:
    """The recipe's augmentations in lightly's or torchvision's terms."""
    size, views = recipe.pretrain.image_size, recipe.views
    if recipe.pretrain.method == "spark":
        pipeline = T.Compose(
            [
                T.RandomResizedCrop(size, scale=(views.crop_min, 1.0)),
                T.RandomHorizontalFlip(views.flip),
                T.RandomRotation(views.rotation),
                T.ToTensor(),
                T.Normalize(IMAGENET_NORMALIZE["mean"], IMAGENET_NORMALIZE["std"]),
            ]
        )
        return T.Lambda(lambda image: [pipeline(image)])
    return MoCoV2Transform(
        input_size=size,
        cj_prob=views.intensity_p, cj_bright=views.brightness, cj_contrast=views.contrast, cj_sat=0.0, cj_hue=0.0,
        min_scale=views.crop_min, random_gray_scale=0.0,
        gaussian_blur=views.blur, sigmas=(0.1, views.blur_sigma * size / 224),
        hf_prob=views.flip, rr_prob=1.0, rr_degrees=views.rotation,
    )  # fmt: skip


def train(recipe: Recipe, files: Sequence[bytes], steps: int, workers: int, device: torch.device) -> Iterator[Tensor]:
    """Train without end, in epochs of `steps` steps; yields the loss of each."""
    config, options = recipe.pretrain, recipe.optimiser
    model = MODELS[config.method](recipe).to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    rate = options.lr * config.batch_size / options.reference_batch
    optimizer: torch.optim.Optimizer
    if options.name == "sgd":
        optimizer = torch.optim.SGD(trained, rate, momentum=options.momentum, weight_decay=options.weight_decay)
    else:
        optimizer = torch.optim.AdamW(trained, rate, weight_decay=options.weight_decay)
    loader = DataLoader(
        PngFiles(files, steps * config.batch_size, recipe),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        multiprocessing_context="fork",  # Linux's own, which a process that was spawned does not have
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    for _ in itertools.count():
        for views in loader:
            views = [view.to(device, non_blocking=True) for view in views]
            with autocast(config, device):
                loss = model(*views)
            loss.backward()
            if options.clip_norm > 0:
                nn.utils.clip_grad_norm_(trained, options.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            yield loss.detach()


def _backbone(recipe: Recipe) -> tuple[nn.Module, int]:
    network = getattr(torchvision.models, recipe.pretrain.backbone)()
    return nn.Sequential(*list(network.children())[:-1]), network.fc.in_features


class MoCo(nn.Module):
    """lightly's example of MoCo v2, with its memory bank."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.config = recipe.method
        self.backbone, features = _backbone(recipe)
        self.projection_head = MoCoProjectionHead(features, features, self.config.dim)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NTXentLoss(self.config.temperature, memory_bank_size=(self.config.queue, self.config.dim))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views [B, 3, S, S]."""
        update_momentum(self.backbone, self.backbone_momentum, m=self.config.momentum)
        update_momentum(self.projection_head, self.projection_head_momentum, m=self.config.momentum)
        query = self.projection_head(self.backbone(first).flatten(start_dim=1))
        key = self.projection_head_momentum(self.backbone_momentum(second).flatten(start_dim=1)).detach()
        return self.criterion(query, key)


class BarlowTwins(nn.Module):
    """lightly's example of Barlow Twins."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.backbone, features = _backbone(recipe)
        width = round(features * recipe.method.expansion)
        self.projection_head = BarlowTwinsProjectionHead(features, width, width)
        self.criterion = BarlowTwinsLoss(recipe.method.redundancy_weight)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views [B, 3, S, S]."""
        z0, z1 = (self.projection_head(self.backbone(x).flatten(start_dim=1)) for x in (first, second))
        return self.criterion(z0, z1)


class SparK(nn.Module):
    """SparK as its authors run it."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.mask_ratio, width = recipe.method.mask, recipe.method.decoder_width
        self.network = getattr(torchvision.models, recipe.pretrain.backbone)()
        features = self.network.fc.in_features
        self.network.fc = nn.Identity()
        channels = [features // 2**level for level in range(4)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(channel) for channel in channels)
        self.tokens = nn.ParameterList(nn.Parameter(torch.randn(1, channel, 1, 1) * 0.02) for channel in channels)
        self.projections = nn.ModuleList(
            nn.Conv2d(channel, width // 2**level, 3 if level else 1, padding=1 if level else 0)
            for level, channel in enumerate(channels)
        )
        for module in [*self.network.modules(), *self.norms]:
            module.__class__ = {
                nn.Conv2d: SparseConv2d, nn.MaxPool2d: SparseMaxPool2d, nn.BatchNorm2d: SparseBatchNorm2d,
            }.get(type(module), type(module))  # fmt: skip
        self.decoder = Decoder(width, doublings=5)
        self.decoder.to_pixels = nn.Conv2d(width // 2**5, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Loss of one view [B, 3, S, S]."""
        side = image.shape[2] // 32
        kept = max(1, min(side**2 - 1, round(side**2 * (1 - self.mask_ratio))))
        chosen = torch.rand(len(image), side**2, device=image.device).argsort(dim=1)[:, :kept]
        active = torch.zeros(len(image), side**2, dtype=torch.bool, device=image.device).scatter_(1, chosen, True)
        global _active
        _active = active.view(len(image), 1, side, side)
        net, maps = self.network, []
        x = net.maxpool(net.relu(net.bn1(net.conv1(image * _visible(image)))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            maps.append(x)
        dense = []
        for x, norm, token, projection in zip(reversed(maps), self.norms, self.tokens, self.projections, strict=True):
            dense.append(projection(torch.where(_visible(x), norm(x), token.to(x.dtype))))
        made, target = (_patches(x.float(), 32) for x in (self.decoder(dense), image))
        target = (target - target.mean(dim=2, keepdim=True)) / (target.var(dim=2, keepdim=True) + 1e-6).sqrt()
        hidden = ~active
        return ((made - target).square().mean(dim=2) * hidden).sum() / hidden.sum()


_active = torch.empty(0)  # the cells of the present batch that are visible, [B, 1, h, w]


def _visible(x: Tensor) -> Tensor:
    repeats = x.shape[2] // _active.shape[2]
    return _active.repeat_interleave(repeats, dim=2).repeat_interleave(repeats, dim=3)


def _patches(x: Tensor, side: int) -> Tensor:
    return F.unfold(x, side, stride=side).transpose(1, 2)


class SparseConv2d(nn.Conv2d):
    """A dense convolution and a mask."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H', W']."""
        x = super().forward(x)
        return x * _visible(x)


class SparseMaxPool2d(nn.MaxPool2d):
    """Max pooling and a mask."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H', W']."""
        x = super().forward(x)
        return x * _visible(x)


class SparseBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of the visible positions."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        where = _visible(x).squeeze(1).nonzero(as_tuple=True)
        last = x.permute(0, 2, 3, 1)
        rows = last[where][:, :, None, None]
        out = torch.zeros_like(last)
        out[where] = super().forward(rows)[:, :, 0, 0].to(out.dtype)
        return out.permute(0, 3, 1, 2)


MODELS = {"moco_plain": MoCo, "barlow_twins": BarlowTwins, "spark": SparK}
