"""The one exception that stands for a mistake a user can mend."""

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input. The message is one line: what was expected, what was found, how to mend it."""


def run_or_exit(command: Callable[[], None]) -> None:
    """Run `command`; a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        command()
    except UserError as error:
        print(f"scarce: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("scarce: interrupted", file=sys.stderr)
        sys.exit(130)
