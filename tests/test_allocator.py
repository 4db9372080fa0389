"""A block that was freed is taken again without the system's help."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from scarce.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)  # 64 MB, more than glibc ever keeps by itself
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_taken_again_without_page_faults() -> None:
    found = [
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("leave", "keep")
    ]
    assert found[0] > 1000  # 16,384 pages, fewer if they are huge
    assert found[1] < 100
