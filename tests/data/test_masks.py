from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scarce.data.masks import read_masks
from scarce.errors import UserError

SIZE = 24
MASKS = np.random.default_rng(0).random((4, SIZE, SIZE)) > 0.5
IDS = ["00000001_000.png", "a/b/c.JPEG", "1.2.840.113", "000000_00"]
NAMES = ["00000001_000.png", "a/b/c.png", "1.2.840.113.png", "000000_00.png"]


def write_masks(folder: Path) -> Path:
    for name, mask in zip(NAMES, MASKS, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
    return folder


def test_masks_come_in_the_order_of_the_ids(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "masks")
    masks = read_masks(folder, IDS, SIZE)
    assert (masks.dtype, masks.shape) == (bool, (4, SIZE, SIZE))
    np.testing.assert_array_equal(masks, MASKS)
    np.testing.assert_array_equal(read_masks(folder, IDS[::-1], SIZE), MASKS[::-1])
    assert read_masks(folder, [], SIZE).shape == (0, SIZE, SIZE)


def as_palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(1 - mask.astype(np.uint8))  # the palette's second colour is black
    image.putpalette([200, 0, 0, 0, 0, 0])
    return image


@pytest.mark.parametrize(
    "encode",
    [
        lambda mask: Image.fromarray(mask),
        lambda mask: Image.fromarray(mask.astype(np.uint8)),
        lambda mask: Image.fromarray(mask.astype(np.uint16) * 256),
        lambda mask: Image.fromarray(np.stack([0 * mask, 0 * mask, mask], axis=2).astype(np.uint8)),
        lambda mask: Image.fromarray(np.stack([mask, mask, mask, np.ones_like(mask)], axis=2).astype(np.uint8) * 255),
        lambda mask: Image.merge("LA", [Image.fromarray(mask.astype(np.uint8)), Image.new("L", (SIZE, SIZE), 255)]),
        as_palette,
    ],
    ids=["1 bit", "0 and 1", "16 bit", "blue", "opaque", "gray and alpha", "palette"],
)
def test_whatever_is_not_black_is_lung(tmp_path: Path, encode) -> None:  # type: ignore[no-untyped-def]
    encode(MASKS[0]).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_masks(tmp_path, ["x.jpg"], SIZE)[0], MASKS[0])


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected a folder of lung masks, found none at {tmp_path / 'masks'}"):
        read_masks(tmp_path / "masks", IDS, SIZE)


def test_missing_masks_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder = write_masks(tmp_path)
    for name in (NAMES[1], NAMES[3]):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"found none for 2 of 4 images \(the first: .*/a/b/c\.png\)"):
        read_masks(folder, IDS, SIZE)
    for strange in ("", "\0", "x" * 5000, "a"):  # "a" is a folder
        with pytest.raises(UserError, match="none for 1 of 1"):
            read_masks(folder, [strange], SIZE)


def test_wrong_size(tmp_path: Path) -> None:
    folder = write_masks(tmp_path)
    Image.new("L", (32, 20)).save(folder / NAMES[2])
    with pytest.raises(UserError, match=r"expected 24 × 24 pixels as the .*, found 32 × 20 in .*113\.png: resize"):
        read_masks(folder, IDS, SIZE)


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "jpeg"])
def test_not_an_image(tmp_path: Path, damage: str) -> None:
    path = write_masks(tmp_path) / NAMES[0]
    if damage == "jpeg":
        Image.new("L", (SIZE, SIZE)).save(path, "JPEG")
    else:
        path.write_bytes({"text": b"lungs\n", "empty": b"", "cut": path.read_bytes()[:-40]}[damage])
    with pytest.raises(UserError, match=f"expected a PNG image, found {path}") as error:
        read_masks(tmp_path, IDS, SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("image_id", ["../x.png", "a/../../x.png", "/x.png", "a/../x"])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, image_id: str) -> None:
    folder = write_masks(tmp_path / "masks")
    for path in (tmp_path / "x.png", folder / "x.png"):
        Image.fromarray(MASKS[0]).save(path)
    with pytest.raises(UserError, match="expected image ids that are paths below the folder"):
        read_masks(folder, [image_id], SIZE)
