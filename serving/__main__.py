"""The built-in model server: `python -m evergreen.serving --model_name=NAME --model_base_path=FOLDER ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evergreen.serving.flags import UsageError, parse, usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server; exit status 0 after a signal, 1 for a command line or a configuration that cannot be obeyed."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if any(one in ("--help", "-help", "-h") for one in given):
        print(usage())
        return 0
    try:
        flags = parse(given)
    except UsageError as error:
        print(f"{error}\n\n`python -m evergreen.serving --help` lists all flags.", file=sys.stderr)
        return 1
    # First: the stubs of tensorflow-serving-api import TensorFlow too, as it comes. And not for --help.
    from evergreen.serving import runtime  # noqa: F401
    from evergreen.serving.app import serve
    from evergreen.serving.errors import ServingError

    try:
        serve(flags)
    except ServingError as error:
        print(error.message, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Failed to start server. Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
