"""Slow work of the first process outlasts what a collective of the others may take."""

import os
from unittest.mock import patch

from forked_runs import FORKS, SURROUNDINGS
from patient_ranks import wait_for_the_lead


def test_the_others_wait_for_the_first_process_as_long_as_it_takes(tmp_path):
    with patch.dict(os.environ, SURROUNDINGS):
        processes = [FORKS.Process(target=wait_for_the_lead, args=(rank, tmp_path), daemon=True) for rank in (0, 1)]
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()
