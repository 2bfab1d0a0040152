"""The id of a run: random, in `environment.json` and in each checkpoint, which shows that they belong together."""

import re
import secrets


def new_run_id() -> str:
    """A random id of 32 hexadecimal digits."""
    return secrets.token_hex(16)


def is_run_id(value: object) -> bool:
    """Whether this may be what `new_run_id` returned."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None
