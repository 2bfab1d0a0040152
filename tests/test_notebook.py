"""`docs/quickstart.ipynb` in a real kernel: cells run, progress is one output, the interrupt button stops with a checkpoint."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from small_runs import TINY

nbformat = pytest.importorskip("nbformat", reason="needs the extra `test`")
nbclient = pytest.importorskip("nbclient", reason="needs the extra `test`")
pytest.importorskip("ipykernel", reason="needs the extra `test`")

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "quickstart.ipynb"
CALL = 'wildfern.pretrain("quickstart", [*CHANGES, "evaluation.on=[]", "training.steps={}"], run="long", resume={})'
STATE = (
    "sorted(thread.name for thread in threading.enumerate()), signal.getsignal(signal.SIGINT), sys.stdout, sys.stderr"
)

pytestmark = pytest.mark.slow


class Kernel:
    """One kernel for all tests: it imports torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notebook = nbformat.read(NOTEBOOK, as_version=4)
        self.client = nbclient.NotebookClient(
            self.notebook,
            timeout=300,
            allow_errors=True,
            shutdown_kernel="immediate",
            resources={"metadata": {"path": str(folder)}},
        )

    def run(self, cell):
        """The cell, with its outputs."""
        self.client.nb.cells.append(cell)
        return self.client.execute_cell(cell, len(self.client.nb.cells) - 1)

    def run_code(self, source: str):
        return self.run(nbformat.v4.new_code_cell(source))

    def interrupt_after(self, condition) -> threading.Thread:
        """Interrupt the kernel, as the button does, once the condition holds."""

        def wait() -> None:
            until = time.monotonic() + 120
            while not condition() and time.monotonic() < until:
                time.sleep(0.02)
            asyncio.run(self.client.km.interrupt_kernel())

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        kernel = Kernel(folder)
        with kernel.client.setup_kernel():
            yield kernel


@pytest.fixture(scope="module")
def cells(kernel):
    """The code cells of the notebook, run with settings that are quick."""
    cells = [cell for cell in list(kernel.notebook.cells) if cell.cell_type == "code"]
    [settings] = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    settings.source += f"\nSTEPS = 3\nCHANGES = {TINY[:-1]!r}\n"
    return [kernel.run(cell) for cell in cells]


def outputs(cell, kind):
    return [output for output in cell.outputs if output.output_type == kind]


def test_no_outputs_are_stored_and_the_notebook_is_short():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert sum(cell.cell_type == "code" for cell in cells) <= 12
    assert [cell.source for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_the_cells_run(cells):
    assert [output.evalue for cell in cells for output in outputs(cell, "error")] == []
    assert [output.text for cell in cells for output in outputs(cell, "stream")] == []


def test_progress_is_one_output_that_ends_with_the_last_step(cells):
    [cell] = [cell for cell in cells if "pretrain(" in cell.source]
    shown, result = cell.outputs
    assert shown.output_type == "display_data"
    assert "step 3/3  100%  took" in shown.data["text/plain"]
    assert len(shown.data["text/plain"].splitlines()) < 15
    assert shown.data["text/html"].startswith("<pre")
    assert "3 of 3 steps" in result.data["text/html"]
    assert 'href="./runs/notebook/report.html"' in result.data["text/html"]


def test_the_table_of_scores_is_shown(cells):
    [cell] = [cell for cell in cells if "evaluate(" in cell.source]
    shown, result = cell.outputs
    assert shown.data["text/plain"].splitlines()[-1].startswith("evaluated in ")
    assert '<td style="text-align: left">linear</td>' in result.data["text/html"]
    assert "Scores on test" in result.data["text/plain"]


def test_an_interrupt_stops_with_a_checkpoint_and_the_kernel_goes_on(kernel, cells):
    before = kernel.run_code(f"import signal, sys, threading\nbefore = {STATE}").outputs
    metrics, checkpoints = kernel.folder / "long" / "metrics.jsonl", kernel.folder / "long" / "checkpoints"
    button = kernel.interrupt_after(lambda: metrics.is_file() and metrics.read_text().count("\n") > 2)
    stopped = kernel.run_code(CALL.format(100_000, False))
    button.join()
    [error] = outputs(stopped, "error")
    [line] = error.traceback
    [checkpoint] = checkpoints.glob("step_*")
    step = int(checkpoint.name.removeprefix("step_"))
    assert before == []
    assert error.ename == "Stopped"
    assert (
        line == f"Stopped: stopped by SIGINT after step {step}; continue with the same call, run='long' and resume=True"
    )
    assert "stopped after" in outputs(stopped, "display_data")[0].data["text/plain"]
    [same] = kernel.run_code(f"before == ({STATE})").outputs
    assert same.data["text/plain"] == "True"
    resumed = kernel.run_code(CALL.format(step + 1, True))
    assert f"resumed from step {step}" in outputs(resumed, "display_data")[0].data["text/plain"]
    assert outputs(resumed, "error") == []


def test_an_interrupt_of_an_evaluation_is_one_line(kernel, cells):
    source = "wildfern.evaluate('long', on='digits', protocols={'name': 'finetune', 'epochs': 1000})"
    cell = nbformat.v4.new_code_cell(source)
    button = kernel.interrupt_after(lambda: cell.outputs)  # its progress is shown
    [error] = outputs(kernel.run(cell), "error")
    button.join()
    assert error.traceback == ["KeyboardInterrupt: stopped by SIGINT"]


def test_errors_of_the_user_are_one_message(kernel, cells):
    [error] = outputs(kernel.run_code('wildfern.pretrain("quickstart", ["training.stesp=3"])'), "error")
    assert error.traceback == ["RecipeErrors: command line: training.stesp: unknown key; did you mean training.steps?"]
