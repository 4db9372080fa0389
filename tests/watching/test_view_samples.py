import numpy as np

from scarce.views import ViewConfig
from scarce.watching.view_samples import sample_views

NOTHING = ViewConfig(crop_min=1, aspect=1, rotation=0, intensity_p=0, blur=0, noise=0)


def test_a_view_with_all_augmentations_off_is_the_image():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    views = sample_views(images, 32, NOTHING, 2)
    assert views.shape == (3, 2, 32, 32)
    assert (views == images[:, None]).all()


def test_views_of_an_image_differ_and_a_seed_repeats_them():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
    views = sample_views(images, 24, ViewConfig(), 2, seed=1)
    assert views.shape == (2, 2, 24, 24)
    assert (views[:, 0] != views[:, 1]).any()
    assert (views == sample_views(images, 24, ViewConfig(), 2, seed=1)).all()
    assert (views != sample_views(images, 24, ViewConfig(), 2, seed=2)).any()
