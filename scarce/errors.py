"""The one exception that stands for a mistake a user can mend."""

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
    except KeyboardInterrupt:
        print("scarce: interrupted", file=sys.stderr)
        sys.exit(130)
