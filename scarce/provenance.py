"""What a run must write down so that it can be repeated: code revision, packages, machine."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("scarce", "torch", "torchvision", "ray", "optuna", "numpy", "scikit-learn", "pyarrow", "pillow")


def describe_environment() -> dict[str, Any]:
    """Git revision (None outside a checkout), package versions, Python, platform and GPU."""
    return {
        "git_revision": git_revision(),
        "command": sys.argv,
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_revision() -> str | None:
    """The checkout's commit, with "-dirty" where files differ from it; None where this is no checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=here, capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return commit.stdout.strip() if commit.returncode == 0 else None
