import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from wildfern.ssl.tracking import WandbRun


@pytest.fixture
def bare_user(tmp_path, monkeypatch):
    """A user without credentials and with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    return home


class FakeWandb:
    """The part of wandb that a run needs, with an unreachable server."""

    class Error(Exception):
        pass

    def __init__(self, reachable):
        self.reachable = reachable
        self.calls = []
        self.logged = []

    def Settings(self, **arguments):
        return arguments

    def setup(self):
        return SimpleNamespace(settings=SimpleNamespace(base_url="https://api.wandb.ai"))

    def init(self, mode, **arguments):
        self.calls.append((mode, arguments))
        if mode == "online" and not self.reachable:
            raise self.Error("Post: no such host\nand so on")
        return SimpleNamespace(log=self._log, finish=lambda exit_code: self.calls.append(("finish", exit_code)))

    def teardown(self):
        self.calls.append(("teardown", {}))

    def _log(self, values, step):
        if step == 13:
            raise RuntimeError("service died")
        self.logged.append((step, values))


def start(run_dir, mode="online", **arguments):
    return WandbRun(mode, "project", "name", run_dir, {"seed": 0}, **arguments)


@pytest.mark.parametrize("arguments", ["'off'", "'online', enabled=False"])
def test_off_and_other_ranks_neither_import_wandb_nor_write(tmp_path, arguments):
    code = (
        "import sys; from wildfern.ssl.tracking import WandbRun;"
        f"run = WandbRun(project='p', run_name='n', run_dir={str(tmp_path)!r}, config={{}}, mode={arguments});"
        "run.log(0, {'loss': 1.0}); run.finish();"
        "assert run.id is None; assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


def test_offline_with_the_real_wandb_and_resumed_under_the_same_id(tmp_path, bare_user):
    run_dir = tmp_path / "run"
    first = start(run_dir, "offline")
    first.log(0, {"loss": 0.4375})
    first.finish()
    again = start(run_dir, "offline")
    again.finish(exit_code=1)
    assert again.id == first.id == (run_dir / "wandb_id").read_text().strip()
    (journal, *more) = sorted((run_dir / "wandb").glob(f"offline-run-*-{first.id}/run-{first.id}.wandb"))
    assert b"0.4375" in journal.read_bytes()
    assert len(more) <= 1  # the second start shares the folder when it falls into the same second
    assert list(bare_user.iterdir()) == []


def test_scores_are_in_the_summary_and_a_table_of_the_real_wandb(tmp_path, bare_user):
    run = start(tmp_path / "run", "offline")
    row = {"dataset": "digits", "protocol": "knn", "metric": "accuracy", "low": 0.5, "high": None, "n": 539}
    run.scores([{**row, "backbone": "random", "value": 0.25}, {**row, "backbone": "pretrained", "value": 0.984375}])
    assert dict(run._run.summary)["digits/knn/accuracy"] == 0.984375
    tables = list((tmp_path / "run" / "wandb").rglob("evaluation_*.table.json"))
    run.finish()
    (content,) = {table.read_text() for table in tables}
    found = json.loads(content)
    assert found["columns"] == ["dataset", "protocol", "backbone", "metric", "value", "low", "high", "n"]
    assert found["data"][1] == ["digits", "knn", "pretrained", "accuracy", 0.984375, 0.5, None, 539]


def test_a_failure_with_the_scores_is_told_once(tmp_path, bare_user, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(reachable=True))  # which has no tables
    messages = []
    run = start(tmp_path, "offline", announce=messages.append)
    for _ in range(2):
        run.scores([{"backbone": "pretrained", "dataset": "d", "protocol": "p", "metric": "m", "value": 1.0}])
    (message,) = messages
    assert message.startswith("wandb did not take the scores")


BAD_IDS = [b"", b"\n", b"x" * 2**20, b"../../x", b"a\nb", b"\xff\xfe", b"a b", b"\0", b"x" * 65, None]


@pytest.mark.parametrize("content", BAD_IDS, ids=range(len(BAD_IDS)))
def test_a_damaged_id_is_replaced_and_kept(tmp_path, bare_user, monkeypatch, content):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(reachable=True))
    file, messages = tmp_path / "wandb_id", []
    file.mkdir() if content is None else file.write_bytes(content)
    run = start(tmp_path, "offline", announce=messages.append)
    assert len(run.id) == 8
    assert file.read_text() == run.id + "\n"
    aside = tmp_path / "wandb_id.damaged"
    assert aside.is_dir() if content is None else aside.read_bytes() == content
    (message,) = messages
    assert message.startswith(f"{file} is damaged (")
    assert message.endswith("): kept as wandb_id.damaged; wandb gets a new run")
    assert start(tmp_path, "offline", announce=messages.append).id == run.id
    assert len(messages) == 1


@pytest.mark.parametrize("given", ["", "../../x", "a\nb", "x" * 65, "é"])
def test_an_id_that_wandb_could_not_use_is_refused(tmp_path, bare_user, given):
    with pytest.raises(ValueError, match="run_id must be 1 to 64 letters, digits, - and _, got "):
        start(tmp_path, "offline", run_id=given)
    assert not (tmp_path / "wandb_id").exists()


def test_online_without_credentials_is_an_error_not_a_prompt(tmp_path, bare_user):
    with pytest.raises(ValueError, match=r"WANDB_API_KEY.*tracking\.wandb=offline"):
        start(tmp_path / "run")


def test_a_netrc_entry_is_enough(tmp_path, bare_user, monkeypatch):
    fake = FakeWandb(reachable=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    (bare_user / ".netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    run = start(tmp_path / "run", run_id="mine")
    assert (run.mode, run.id) == ("online", "mine")
    assert start(tmp_path / "run").id == "mine"
    mode, arguments = fake.calls[0]
    assert (mode, arguments["id"], arguments["resume"], arguments["dir"]) == (
        "online", "mine", "allow", str(tmp_path / "run"),
    )  # fmt: skip


def test_a_group_is_passed_on(tmp_path, bare_user, monkeypatch):
    fake = FakeWandb(reachable=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    start(tmp_path / "run", "offline", group="my sweep")
    assert fake.calls[0][1]["group"] == "my sweep"


def test_the_agent_of_a_wandb_sweep_chooses_the_id(tmp_path, bare_user, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(reachable=True))
    monkeypatch.setenv("WANDB_RUN_ID", "of-agent")
    assert start(tmp_path / "other", "offline").id != "of-agent"  # that of another run, without a sweep
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert start(tmp_path / "run", "offline").id == "of-agent"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert start(tmp_path / "run", "offline").id == "of-agent"  # resumed by hand


def test_an_unreachable_server_is_announced_and_the_run_goes_on_offline(tmp_path, bare_user, monkeypatch):
    fake = FakeWandb(reachable=False)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    said = []
    run = start(tmp_path / "run", announce=said.append)
    run.log(3, {"loss": 1.0})
    run.finish(2)
    run.finish(2)
    assert said == ["wandb cannot be reached, logging offline instead (Post: no such host)"]
    assert [call[0] for call in fake.calls] == ["online", "teardown", "offline", "finish"]
    assert fake.calls[0][1]["id"] == fake.calls[2][1]["id"] == run.id
    assert fake.calls[-1] == ("finish", 2)
    assert run.mode == "offline"
    assert fake.logged == [(3, {"loss": 1.0})]


def test_a_later_failure_ends_logging_and_not_training(tmp_path, bare_user, monkeypatch):
    fake = FakeWandb(reachable=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    said = []
    run = start(tmp_path / "run", "offline", announce=said.append)
    for step in (12, 13, 14):
        run.log(step, {"loss": 1.0})
    assert [step for step, _ in fake.logged] == [12]
    assert said == ["wandb failed at step 13; logging to it ends here (RuntimeError: service died)"]


def test_a_process_without_a_home_folder_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr("os.path.expanduser", str)
    with pytest.raises(ValueError, match=r"the home folder, which is not known here: set HOME"):
        WandbRun("offline", "p", "r", tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="off, offline or online, not 'disabled'"):
        start(tmp_path, "disabled")
