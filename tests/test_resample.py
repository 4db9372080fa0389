import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scarce.resample import blur_taps, combine_lines, resize_taps


def dense(index: torch.Tensor, weights: torch.Tensor, source: int) -> torch.Tensor:
    return torch.zeros(*weights.shape[:2], source).scatter_add(2, index.long().expand_as(weights), weights)


@settings(max_examples=100, deadline=None)
@given(st.floats(-20, 60), st.floats(5, 90), st.integers(4, 70), st.integers(4, 70), st.booleans())
def test_resize_taps_are_the_triangle_and_average(start, length, source, target, mirrored):
    begin, span = (start + length, -length) if mirrored else (start, length)
    index, weights = resize_taps(torch.tensor([begin]), torch.tensor([span]), source, target, length)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(1, target))
    step = length / target
    centre = (start + (torch.arange(target) + 0.5) * step).clamp(0.5, source - 0.5)
    triangle = (1 - (torch.arange(source) + 0.5 - centre[:, None]).abs() / max(step, 1)).clamp(min=0)
    triangle = triangle / triangle.sum(1, keepdim=True)
    torch.testing.assert_close(
        dense(index, weights, source)[0], triangle.flip(0) if mirrored else triangle, atol=1e-4, rtol=0
    )


def test_blur_taps_are_a_gaussian_cut_off_at_the_ends():
    sigma = torch.tensor([0.1, 1.0, 2.5])
    index, weights = blur_taps(sigma, 20, 2.5)
    distance = torch.arange(20.0)[:, None] - torch.arange(20.0)
    gaussian = torch.exp(-0.5 * (distance / sigma[:, None, None]) ** 2)
    torch.testing.assert_close(dense(index, weights, 20), gaussian / gaussian.sum(2, keepdim=True), atol=1e-4, rtol=0)


def test_combining_lines_is_a_matrix_product_an_image():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 10, 7, generator=generator)
    index, weights = torch.randint(0, 10, (3, 5, 4), generator=generator), torch.rand(3, 5, 4, generator=generator)
    expected = dense(index, weights, 10) @ images
    torch.testing.assert_close(combine_lines(images, index, weights), expected)
    expected = dense(index[0], weights, 10) @ images
    torch.testing.assert_close(combine_lines(images, index[0], weights), expected)
