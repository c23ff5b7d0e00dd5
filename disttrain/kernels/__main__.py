"""Compiles the operations ahead of their first use: `python -m disttrain.kernels`."""

import sys

from disttrain import kernels


def main():
    """Compiles and loads them.

    Returns:
        The exit status: 0, or 1 with the reason on standard error.
    """
    try:
        library, _ = kernels.load_or_say_why()
    except kernels.CannotCompile as error:
        print(f"disttrain's operations cannot be compiled: {error}", file=sys.stderr)
        return 1
    print(f"compiled: {library}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
