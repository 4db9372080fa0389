"""The `scarce` command as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from hospital_folders import write_nih

from scarce.data.phantom import PhantomConfig, write_phantom


def scarce(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from scarce.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_convert_and_describe(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=4)
    converted = scarce("convert", "nih", "--source", source, "--out", tmp_path / "out", "--size", "32")
    assert converted.returncode == 0, converted.stderr
    assert "Dataset" not in converted.stderr  # Ray Data's plans
    assert converted.stdout.splitlines()[-1].endswith("out: 4 images of 2 patients, 0 rejected")
    described = scarce("describe", tmp_path / "out")
    assert described.returncode == 0, described.stderr
    assert described.stdout.startswith("nih: 4 images of 2 patients, 32 x 32 pixels")


@pytest.mark.parametrize("hospital", ["nih", "padchest", "folder"])
def test_a_wrong_folder_is_told_in_one_line(tmp_path: Path, hospital: str) -> None:
    ended = scarce("convert", hospital, "--source", tmp_path, "--out", tmp_path / "out")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("scarce: ")
    assert len(ended.stderr.splitlines()) == 1
    assert "expected" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_no_dataset_to_describe(tmp_path: Path) -> None:
    ended = scarce("describe", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"scarce: no converted dataset in {tmp_path}")


@pytest.mark.parametrize(
    "arguments", [[], ["convert"], ["convert", "mars"], ["convert", "nih"], ["describe", "--nonsense", "x"], ["audit"]]
)
def test_wrong_arguments_exit_2(arguments: list[str]) -> None:
    assert scarce(*arguments).returncode == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from scarce.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([name for name in ('ray', 'torch', 'pandas', 'pyarrow', 'sklearn') if name in sys.modules])"
    )
    own = ("audit", "tune-packing", "show", "views", "gap", "export", "features", "apply", "fetch")
    for arguments in (["--help"], ["convert", "folder", "--help"], *([name, "--help"] for name in own)):
        ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert ended.stdout.splitlines()[-1] == "[]"


def test_tune_packing_prints_the_flags_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_phantom(PhantomConfig("a", patients=40, size=32), tmp_path / "a")
    few = ["--trials-at-once", "1", "--batch-sizes", "8", "--image-size", "32", "--epochs", "2", "--seconds", "0.2"]
    ended = scarce("tune-packing", "--pretrain", tmp_path / "a", *few)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "for 2 epochs" in lines[0]
    assert lines[2].split()[:2] == ["1", "0"]
    assert lines[-1].startswith("--concurrent 1 --cpus-per-trial ")
    assert lines[-1].endswith(" --batch-size 8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trials-at-once", "0"], "--trials-at-once must be at least 1, got 0"),
        (["--preset", "mars"], "--preset mars: expected one of cpu, l4"),
        (["--preset", "l4", "--pretrain", "nowhere"], "no converted dataset in "),
    ],
)
def test_what_tune_packing_cannot_do_is_told_in_one_line(arguments: list[str], words: str) -> None:
    ended = scarce("tune-packing", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"scarce: {words}")
    assert len(ended.stderr.splitlines()) == 1


def test_tune_packing_takes_a_presets_defaults() -> None:
    helped = scarce("tune-packing", "--preset", "l4", "--help")
    assert helped.returncode == 0
    assert "(default: resnet50)" in helped.stdout
    assert "(default: 384)" in helped.stdout
