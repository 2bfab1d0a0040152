"""What is said of a damaged file that is kept before it is written anew."""

from pathlib import Path

from wildfern.files import set_aside


def kept_aside(file: Path, damage: object) -> str:
    """Rename a damaged file that is about to be written anew; a message that says so. `damage` is what is wrong with it."""
    reason = damage.strerror if isinstance(damage, OSError) and damage.strerror else damage
    return f"{file} is damaged ({reason}): kept as {set_aside(file).name}, and written anew"
