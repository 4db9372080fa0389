"""What runs on this machine: asked of the kernel."""

import os
from contextlib import suppress
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether there is a process of this id, anyone's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descendants(ancestor: int) -> set[int]:
    """Processes started by `ancestor`, directly or through others. Empty where there is no /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    generation = {ancestor}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation}
        found |= generation
    return found
