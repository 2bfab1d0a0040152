"""Types of arguments of command lines."""

import argparse


def at_least_one(words: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(words)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, and a whole number, got {words!r}")
    return number
