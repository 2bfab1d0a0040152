"""The command `wildfern plan`: its table, its JSON file, invalid arguments."""

import json
import sys
from dataclasses import replace

import pytest
from small_runs import TINY

from wildfern.launch import estimate as estimates
from wildfern.launch.cli import main
from wildfern.launch.estimate_notes import GIB

VIT_OF_ANOTHER_SIZE = [
    "model.arguments=null",
    "model={backbone: vit_tiny_patch16_224, arguments: {img_size: 64}}",
]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `wildfern plan …` in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def plan(*arguments):
        monkeypatch.setattr(sys, "argv", ["wildfern", "plan", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return plan


def test_the_links_that_are_assumed_are_shown_and_can_be_replaced(run, tmp_path):
    options = ["--gpus", "4", "--gpu", "h100", "--json", "estimate.json"]
    _, said, _ = run("quickstart", *TINY, *options)
    assert "450 GB/s between the GPUs of a host" in " ".join(said.split())
    assert "--host-bandwidth" not in said
    one_host = json.loads((tmp_path / "estimate.json").read_text())
    _, said, _ = run("quickstart", *TINY, *options, "--gpus-per-host", "2")
    assert "50 GB/s out of each host (--host-bandwidth)" in " ".join(said.split())
    two_hosts = json.loads((tmp_path / "estimate.json").read_text())
    _, said, _ = run("quickstart", *TINY, *options, "--gpus-per-host", "2", "--host-bandwidth", "0.5")
    assert "0.5 GB/s out of each host" in " ".join(said.split())
    slow = json.loads((tmp_path / "estimate.json").read_text())
    assert [found["host_bandwidth"] for found in (one_host, two_hosts, slow)] == [None, 50, 0.5]
    assert one_host["hours"] < two_hosts["hours"] < slow["hours"]


def test_small_micro_batches_and_rows_that_do_not_shrink_are_explained(run):
    _, said, _ = run("quickstart", *TINY, "--gpus", "4", "training.accumulation=2")
    said = " ".join(said.split())
    assert "Micro-batches of 1 image use a GPU badly" in said
    assert "plan fewer GPUs, a smaller training.accumulation or a larger training.batch_size" in said
    assert "At ZeRO 3 a GPU stores its share, and keeps all gathered weights" in said
    _, said, _ = run("quickstart", *TINY, "training.batch_size=32", "--gpus", "4")
    assert "use a GPU badly" not in said
    _, said, _ = run("quickstart", *TINY)
    assert "ZeRO" not in said
    assert "use a GPU badly" not in said


def test_the_table_and_the_file_agree_and_show_the_measurement(run, tmp_path):
    code, said, _ = run("quickstart", *TINY, "--measure", "--json", "estimate.json")
    assert code == 0
    written = json.loads((tmp_path / "estimate.json").read_text())
    peak = written["bytes_per_rank"]["torch"]["peak"]
    assert f"{peak / 2**30:.4f}" in said
    assert peak == pytest.approx(written["measured_peak_bytes"], rel=0.1)
    assert "measured on this machine" in said
    assert "--images-per-second" in said  # unknown hardware: no hours
    assert written["hours"] is None


def test_the_estimate_for_gpus_shows_which_stage_fits_and_its_assumptions(run, tmp_path):
    code, said, _ = run(
        "quickstart", *TINY, "--gpus", "2", "--gpu", "h100", "--memory", "0.001", "--json", "estimate.json"
    )
    assert code == 0
    for words in ("ZeRO 0", "ZeRO 1 *", "ZeRO 3", "does not fit", "30% of 989 TFLOP/s", "sent per step"):
        assert words in said
    written = json.loads((tmp_path / "estimate.json").read_text())
    assert written["hardware"] == {"memory": 0.001, "tflops": 989.0, "bandwidth": 450.0}
    assert written["measured_peak_bytes"] is None
    assert written["measure_with"].endswith("--measure")


def test_what_hosts_must_load_and_keep_is_shown_and_written(run, tmp_path):
    options = ["--gpus", "4", "--gpus-per-host", "2", "--images", "1000000000", "--images-per-second", "1000"]
    changes = ["training.checkpoint_form=sharded", "--json", "estimate.json"]
    code, said, _ = run("quickstart", *TINY, *options, *changes)
    said = " ".join(said.split())
    assert code == 0
    written = json.loads((tmp_path / "estimate.json").read_text())
    assert (written["gpus_per_host"], written["images_per_second_per_host"]) == (2, 500)
    assert "500 images/s to load on each of 2 hosts with 2 GPUs" in said
    assert written["index_bytes_per_host"] == {"folder": 60 * 10**9, "shards": 52 * 10**9}
    assert f"{60e9 / 2**30:.2f} GiB for a folder, {52e9 / 2**30:.2f} GiB for tar shards" in said
    assert written["checkpoint_form"] == "sharded"
    part = written["checkpoint_bytes_of_a_writer"]
    assert part == -(-written["checkpoint_bytes"] // 4)
    assert f"in 4 parts (sharded): each rank copies and writes {part / 2**30:.4f} GiB" in said


def test_one_host_without_a_known_speed_has_nothing_more_to_say(run, tmp_path):
    code, said, _ = run("quickstart", *TINY, "--json", "estimate.json")
    written = json.loads((tmp_path / "estimate.json").read_text())
    assert code == 0
    assert (written["images_per_second_per_host"], written["index_bytes_per_host"]) == (None, None)
    assert "to load" not in said
    assert "index of" not in said
    assert "rank 0" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpus-per-host", "0"], ["--gpus-per-host"]),
        (["--images", "0"], ["--images"]),
        (["--gpu", "h300"], ["h100", "--memory"]),
        (["--gpus", "3"], ["does not divide", "8"]),
        (["--gpus", "0"], ["--gpus"]),
        (["--gpus", "1000000000"], ["--gpus"]),
        (["--gpus-per-host", "1000000000"], ["--gpus-per-host"]),
        (["--images", "1" + 400 * "0"], ["--images"]),
        (["--utilization", "30"], ["--utilization"]),
        (["--measure", "--gpus", "2"], ["--gpus 1"]),
        (VIT_OF_ANOTHER_SIZE, ["vit_tiny_patch16_224 cannot be estimated", "64"]),
        (["training.stepz=1"], ["training.steps"]),
    ],
)
def test_invalid_arguments(run, arguments, words):
    code, _, complaint = run("quickstart", *TINY, *arguments)
    assert code == 2
    for word in words:
        assert word in complaint


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e308", "1e-308", "0", "-1"])
@pytest.mark.parametrize(
    "option", ["--memory", "--tflops", "--bandwidth", "--host-bandwidth", "--utilization", "--images-per-second"]
)
def test_numbers_are_finite_and_above_0(run, option, value):
    code, said, complaint = run("quickstart", f"{option}={value}")
    assert (code, said) == (2, "")
    (line,) = [line for line in complaint.splitlines() if line.startswith("Error")]
    assert f"'{option}'" in line
    assert "must be a finite number above 0, from 0.001 to 1" in line


@pytest.mark.parametrize("number", ["0.001", "1000000000"])
@pytest.mark.parametrize("speed", [[], ["--images-per-second"]])
def test_results_of_the_least_and_largest_numbers_are_finite(run, tmp_path, number, speed):
    options = [f"{name}={number}" for name in ("--memory", "--tflops", "--bandwidth", "--host-bandwidth", *speed)]
    counts = ["--gpus", "8", "--gpus-per-host", "2", "--images", str(10**15), "--utilization", "0.001"]
    code, said, _ = run("quickstart", *TINY, *options, *counts, "--json", "estimate.json")
    assert code == 0
    assert not {"inf", "nan"} & set(said.split())
    json.loads((tmp_path / "estimate.json").read_text(), parse_constant=pytest.fail)  # called for NaN and Infinity


def test_where_the_start_decides_whether_a_run_fits(run, tmp_path, monkeypatch):
    real = estimates.step_footprint

    def of_large_weights(*arguments, **options):
        sizes = dict.fromkeys(("weights", "gradients", "optimizer", "peak"), 40 * GIB)
        return replace(real(*arguments, **options), **sizes)

    monkeypatch.setattr(estimates, "step_footprint", of_large_weights)
    options = ["--gpus", "8", "--memory", "32", "--json", "estimate.json"]
    _, said, _ = run("quickstart", *TINY, *options)
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in said.splitlines() if line.startswith("│")}
    step, start = float(rows["peak of a step"][3]), 40.0
    assert step < 32 < start
    assert float(rows["peak"][3]) == start
    assert rows["of 32 GiB"][3].strip() == "125%: does not fit"
    found = json.loads((tmp_path / "estimate.json").read_text())["bytes_per_rank"]
    assert (found["zero_3"]["peak"], found["zero_3"]["peak_of_the_start"]) == (40 * GIB, 40 * GIB)
    assert found["zero_3"]["peak_of_a_step"] / GIB == pytest.approx(step, abs=0.01)
    assert found["zero_2"]["peak"] == found["zero_2"]["peak_of_a_step"] > 40 * GIB
    note = f"a GPU makes the whole network once: 40.00 GiB, more than the {step:.2f} GiB of a step."
    assert f"start: at ZeRO 3 it decides, since before weights are sharded {note}" in " ".join(said.split())
    assert said.count("it decides") == 1


def test_a_start_that_does_not_decide_is_not_shown(run):
    _, said, _ = run("quickstart", *TINY, "--gpus", "8")
    assert "start" not in said
