from typer.testing import CliRunner

from wildfern.launch.cli import app
from wildfern.registry import EVALUATORS


def test_all_protocols_are_listed_with_their_arguments():
    done = CliRunner().invoke(app, ["evaluate", "--protocol", "help"])
    assert done.exit_code == 0, done.output
    for name in EVALUATORS:
        assert f"\n{name}  " in "\n" + done.output
    assert "    strengths=[1, 0.1, 0.01, 0.001, 0.0001, 1e-05, 1e-06]\n" in done.output
    assert "    layers=null\n" in done.output
