"""ImageNet weights: what a file holds is recognised, and the network sees what it was trained on."""

import http.server
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import alexnet, convnext_tiny, resnet18, resnet50

from scarce.errors import UserError
from scarce.fewshot import imagenet
from scarce.fewshot.imagenet import imagenet_size, load_imagenet

RGB = (torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
HALF = (torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.5))
MAKE: dict[str, tuple[Callable[[], torch.nn.Module], str, tuple[torch.Tensor, torch.Tensor]]] = {
    "resnet18": (resnet18, "fc", RGB),
    "resnet50": (resnet50, "fc", RGB),
    "convnext_tiny": (convnext_tiny, "classifier.2", RGB),
    "vit_small": (lambda: timm.create_model("vit_small_patch16_224"), "head", HALF),
}


@pytest.mark.parametrize("name", sorted(MAKE))
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_features_are_the_librarys_on_three_normalised_channels(name, suffix, tmp_path):
    make, classifier, (mean, std) = MAKE[name]
    torch.manual_seed(0)
    theirs = make().eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), path)
    else:
        save_file(theirs.state_dict(), path)
    theirs.set_submodule(classifier, torch.nn.Identity())
    intensity = torch.rand(2, 1, 64 if name != "vit_small" else 224, 64 if name != "vit_small" else 224)
    ours = load_imagenet(path)
    with torch.no_grad():
        expected = theirs((intensity.repeat(1, 3, 1, 1) - mean) / std)
        torch.testing.assert_close(ours((intensity - 0.5) / 0.25), expected, atol=1e-4, rtol=1e-4)
    assert not ours.training


def test_weights_without_classifier_or_counters_load_too(tmp_path):
    weights = resnet18().state_dict()
    bare = {k: v for k, v in weights.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "old.pth")
    assert load_imagenet(tmp_path / "old.pth")(torch.zeros(1, 1, 64, 64)).shape == (1, 512)


@pytest.mark.parametrize("what", ["nothing", "text", "list", "another"])
def test_a_file_that_is_no_such_weights_is_one_line(what, tmp_path):
    path = tmp_path / "weights.pth"
    if what == "text":
        path.write_text("weights")
    elif what == "list":
        torch.save([1, 2], path)
    elif what == "another":
        torch.save(alexnet().state_dict(), path)
    with pytest.raises(UserError, match="expected a state_dict") as caught:
        load_imagenet(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("image_size", "given"), [(64, 224), (224, 224), (225, 240), (256, 256)])
def test_small_images_are_enlarged(image_size, given):
    assert imagenet_size(image_size) == given


class TestDownload:
    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[tuple[str, Path]]:
        """A local server of one file, and where it lies."""
        folder = tmp_path / "www"
        folder.mkdir()

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object, **named: object) -> None:
                super().__init__(*arguments, directory=str(folder), **named)  # type: ignore[arg-type]

            def log_message(self, *_: object) -> None:
                return

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}", folder
            server.shutdown()

    def test_a_file_that_is_what_its_name_says_is_kept(self, served, tmp_path):
        url, folder = served
        content = b"weights" * 1000
        name = f"net-{sha256(content).hexdigest()[:8]}.pth"
        (folder / name).write_bytes(content)
        imagenet._download(f"{url}/{name}", tmp_path / name, seconds=10, silence=5)
        assert (tmp_path / name).read_bytes() == content

    def test_a_damaged_or_missing_file_is_not(self, served, tmp_path):
        url, folder = served
        (folder / "net-00000000.pth").write_bytes(b"something else")
        for name in ("net-00000000.pth", "missing-00000000.pth"):
            with pytest.raises(OSError, match=r"damaged|404"):
                imagenet._download(f"{url}/{name}", tmp_path / name, seconds=10, silence=5)
            assert not (tmp_path / name).exists()

    @pytest.mark.parametrize("trickles", [True, False])
    def test_a_server_that_never_ends_is_given_up(self, trickles, tmp_path):
        ended = threading.Event()

        class Endless(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                while not ended.wait(0.02):
                    if trickles:
                        self.wfile.write(b"x")

            def log_message(self, *_: object) -> None:
                return

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/net-00000000.pth"
            limits = {"seconds": 0.5, "silence": 30} if trickles else {"seconds": 30, "silence": 0.5}
            with pytest.raises(TimeoutError):
                imagenet._download(url, tmp_path / "net-00000000.pth", **limits)
            ended.set()
            server.shutdown()
        assert list(tmp_path.iterdir()) == []

    def test_no_network_is_an_oserror_in_no_time(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

        def unreachable(*_: object, **__: object) -> None:
            raise OSError("network is unreachable")

        monkeypatch.setattr(imagenet.urllib.request, "urlopen", unreachable)
        with pytest.raises(OSError, match="unreachable"):
            imagenet.download_imagenet("resnet18")
