"""How a command starts and ends: signals and standard streams first, then its work, then one message and an exit code.

`wildfern` starts here. Until the signals are handled, only small modules of Python are imported.
"""

import os
import signal
import sys
from collections.abc import Callable

from wildfern.launch.interrupts import Interrupts, exit_code, handled, is_other_rank
from wildfern.launch.streams import LostOutput, explained_loss, lost_output, prepare_streams


def main() -> None:
    """The command `wildfern`."""
    Interrupts().install()  # for good: also for the time in which Python ends the process

    def work() -> None:
        from wildfern.launch.cli import invoke
        from wildfern.launch.light_start import defer_imports

        defer_imports()
        invoke()

    run_command(work)


def run_command(work: Callable[[], object]) -> None:
    """Do the work of a command; returns if it is done, else prints one message to standard error and exits.

    A bug keeps its traceback.
    """
    with handled() as interrupts:
        code = 1
        try:
            code, message = _outcome(work, interrupts)
        finally:
            interrupts.finish()
        if message:
            interrupts.say(message)
        if interrupts.number is not None:
            lost_output()  # print what is left
            interrupts.leave(code)
        _leave(code)


def _outcome(work: Callable[[], object], interrupts: Interrupts) -> tuple[int, str]:
    try:
        prepare_streams()
        work()
        return lost_output() or (0, "")
    except KeyboardInterrupt:
        interrupts.number = interrupts.number or signal.SIGINT
        return exit_code(), interrupts.message()
    except Exception as error:
        if interrupts.number is not None:  # a library has turned the interrupt into an error of its own
            return exit_code(), interrupts.message()
        if isinstance(error, LostOutput):
            return explained_loss(error)
        from wildfern.launch.exit_codes import explained, is_stop

        code, message = explained(error)
        if code is None:
            raise
        return code, "" if is_stop(error) and is_other_rank() else message  # all ranks have stopped: rank 0 says it


def _leave(code: int) -> None:
    """Exit; at once if a process was lost, because destroying the process group would wait for it."""
    heartbeat = sys.modules.get("wildfern.launch.cluster.heartbeat")
    if heartbeat is not None and code == heartbeat.LOST:
        os._exit(code)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
