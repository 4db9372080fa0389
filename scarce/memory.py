"""What running out of memory looks like: CUDA, the CPU's allocator, oneDNN and Python each say it in another way."""

import torch

WORDS = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was asked for and not given: of the GPU or of the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
