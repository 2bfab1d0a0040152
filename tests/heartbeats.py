"""What tests of the heartbeat share: verdicts, and where rank 0 listens."""

import threading

SILENCE = 0.6


class Verdicts:
    """What ends each rank: (rank, text, exit code), in order."""

    def __init__(self):
        self.found, self._one_more = [], threading.Condition()

    def of(self, rank):
        def end(text, exit_code):
            with self._one_more:
                self.found.append((rank, text, exit_code))
                self._one_more.notify()

        return end

    def wait(self, count, seconds=10.0):
        with self._one_more:
            assert self._one_more.wait_for(lambda: len(self.found) >= count, seconds), self.found
        return sorted(self.found)


def place(main):
    return list(main.ports.items())


def fail_after(beats):
    """The heartbeat of this process fails with an error after that number of turns with every rank connected."""
    from wildfern.launch.cluster.heartbeat import Heartbeat

    original = Heartbeat._check_peers

    def check(self, now):
        nonlocal beats
        beats -= all(peer.connection for peer in self._peers.values())
        if beats <= 0:
            raise ValueError("broken on purpose")
        original(self, now)

    Heartbeat._check_peers = check
