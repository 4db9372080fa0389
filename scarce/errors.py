"""The one exception that stands for a mistake a user can mend, and how a command ends with it."""

import errno
import os
import sys
from collections.abc import Callable

# What the system refuses because of where the user pointed, not because of a mistake here.
_PLACES = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
        *(errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP),
    }
)


EXITS = "Exit codes: 0 done, 2 a mistake that one line on stderr explains, 130 Ctrl-C, 143 SIGTERM, 1 a fault of ours."


class UserError(Exception):
    """Bad input. The message is one line: what was expected, what was found, how to mend it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: to be heeded as Ctrl-C is, by everything on the way."""


def one_line(text: object) -> str:
    """`text` on one line that a terminal shows as it is: names of files may hold line ends and control characters."""
    words = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in words)


def run_or_exit(command: Callable[[], None]) -> None:
    """Run `command`; a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130, SIGTERM 143.

    A file or folder that can't be read or written, and a full disk, are told as a `UserError` is.
    """
    try:
        command()
    except UserError as error:
        _exit(error)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in _PLACES or error.filename is None:
            raise
        _exit(f"{os.fsdecode(error.filename)}: {error.strerror}: choose a place that can be read and written")
    except Terminated:
        print("scarce: ended by SIGTERM; the same command with --resume goes on from here", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("scarce: interrupted", file=sys.stderr)
        sys.exit(130)


def _exit(reason: object) -> None:
    print(f"scarce: {one_line(reason)}", file=sys.stderr)
    sys.exit(2)
