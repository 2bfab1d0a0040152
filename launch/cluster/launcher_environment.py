"""The variables that launchers set for each process, checked in one place before anything reads them."""

import re
import socket
import time
from collections.abc import Mapping

from wildfern.launch.errors import RunError

# Least and most of each; a variable that is not set is not checked, nor is any where none of OWN has a value.
NUMBERS = {
    "RANK": (0, 2**31 - 1),
    "LOCAL_RANK": (0, 2**31 - 1),
    "WORLD_SIZE": (1, 2**31 - 1),
    "LOCAL_WORLD_SIZE": (1, 2**31 - 1),
    "LOCAL_SIZE": (1, 2**31 - 1),
    "MASTER_PORT": (0, 2**16 - 1),
}
OWN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")  # the others may be left over, or be those of a Kubernetes service "master"
BELOW = (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_SIZE"))
NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by several processes
RESOLVE_SECONDS = 5.0  # names of containers may be known somewhat later than these run


def number_of(environment: Mapping[str, str], name: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """The whole number in a variable. Raises RunError, with name and value, for anything else; KeyError if it is not set."""
    value = environment[name]
    if not re.fullmatch(r"[0-9]{1,10}", value) or not least <= int(value) <= most:
        up_to = f" to {most}" if most < 2**31 - 1 else " or more"
        raise RunError(
            f"the environment variable {name} is {value!r}, but must be a whole number, {least}{up_to}: the launcher sets it"
        )
    return int(value)


def check_launcher_environment(environment: Mapping[str, str]) -> None:
    """Raise RunError, with its name and value, for a variable of a launcher that is not valid or does not fit another."""
    numbers = {}
    if any(environment.get(name) for name in OWN):
        numbers = {
            name: number_of(environment, name, least, most)
            for name, (least, most) in NUMBERS.items()
            if name in environment
        }
    for name, limit in BELOW:
        if name in numbers and limit in numbers and numbers[name] >= numbers[limit]:
            raise RunError(
                f"the environment variable {name} is {numbers[name]}, but must be less than {limit}, which is {numbers[limit]}"
            )
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads and not re.fullmatch(r" *0*[1-9][0-9]{0,5} *(, *0*[1-9][0-9]{0,5} *)*", threads):
        raise RunError(
            f"the environment variable OMP_NUM_THREADS is {threads!r}, but must be a number of threads, 1 or more: set it to "
            "one, or unset it"
        )
    if several_processes(environment):
        check_complete(environment)
        check_address(environment["MASTER_ADDR"])


def several_processes(environment: Mapping[str, str]) -> bool:
    """Whether a launcher has started more than one process."""
    return bool(environment.get("WORLD_SIZE")) and number_of(environment, "WORLD_SIZE", 1) > 1


def check_complete(environment: Mapping[str, str]) -> None:
    """Raise RunError for a variable that processes with a rank need, but the launcher has not set."""
    if missing := [name for name in NEEDED if name not in environment]:
        raise RunError(
            f"the environment variable {missing[0]} is not set: start the command with a launcher that sets "
            f"{', '.join(NEEDED)} for each process"
        )


def check_address(address: str) -> None:
    """Raise RunError for a MASTER_ADDR that this host cannot resolve."""
    wrong = f"the environment variable MASTER_ADDR is {address!r}"
    if not address.strip() or address.startswith("-") or not address.isprintable():
        raise RunError(f"{wrong}, but must be the name or address of rank 0's host")
    until = time.monotonic() + RESOLVE_SECONDS
    while True:
        try:
            socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() >= until or isinstance(error, UnicodeError):
                reason = error.strerror if isinstance(error, OSError) else error
                raise RunError(
                    f"{wrong}, which the host {socket.gethostname()} cannot resolve ({reason}): it must be the name or address "
                    "of rank 0's host"
                ) from None
        time.sleep(min(0.5, RESOLVE_SECONDS))
