"""A resumable Weights & Biases run that never prompts and never stops training."""

import netrc
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from wildfern.files import check_folder, read_bytes, set_aside, write_text

ID_FILE = "wandb_id"
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
ID_WORDS = "1 to 64 letters, digits, - and _"
MOST_BYTES = 1_000  # of the file
SCORE_COLUMNS = (
    "dataset", "protocol", "backbone", "metric", "value", "low", "high", "n", "difference", "difference_low",
    "difference_high",
)  # fmt: skip
INIT_TIMEOUT = 30  # seconds to wait for the server; wandb's default is 90


class WandbRun:
    """Logs to wandb; with `mode` "off" or `enabled=False` wandb is not imported.

    All files are in `run_dir`, and the run's id in `run_dir/wandb_id`, so that a resumed run continues under the same id
    (`run_id` overrides it). "online" without credentials raises ValueError at once, because wandb would wait at a prompt; so
    does a process without a home folder.
    `group` joins runs in wandb's pages. A run that an agent of a wandb sweep starts takes the id that the agent has chosen.
    If the server cannot be reached, a message says so and the run continues offline. A later failure is reported once and ends
    the logging, not the training. Only one process of a run logs: pass `enabled=rank == 0`.
    """

    def __init__(
        self,
        mode: Literal["off", "offline", "online"],
        project: str,
        run_name: str,
        run_dir: str | os.PathLike[str],
        config: Mapping[str, Any],
        run_id: str | None = None,
        *,
        group: str | None = None,
        enabled: bool = True,
        announce: Callable[[str], None] = print,
    ) -> None:
        if mode not in ("off", "offline", "online"):
            raise ValueError(f"tracking.wandb must be off, offline or online, not {mode!r}")
        self.mode = mode if enabled else "off"
        self.id: str | None = None
        self._announce = announce
        self._run: Any = None
        if self.mode == "off":
            return
        if os.path.expanduser("~") == "~":
            raise ValueError(
                "tracking.wandb: wandb keeps its settings in the home folder, which is not known here: set HOME to a folder "
                "that can be written to, or tracking.wandb=off"
            )
        run_dir = Path(run_dir)
        check_folder(run_dir / "wandb")
        self.id = _stable_id(run_dir, run_id, announce)
        with _quiet_surroundings(run_dir):
            self._run = self._start(
                dict(project=project, name=run_name, group=group, config=dict(config), id=self.id, dir=str(run_dir))
            )

    def _start(self, arguments: dict[str, Any]) -> Any:
        import wandb

        settings = wandb.Settings(console="off", silent=True, disable_git=True, init_timeout=INIT_TIMEOUT)
        if self.mode == "online":
            _require_credentials(wandb.setup().settings.base_url)
            try:
                return wandb.init(mode="online", resume="allow", settings=settings, **arguments)
            except wandb.Error as error:
                self.mode = "offline"
                self._announce(f"wandb cannot be reached, logging offline instead ({str(error).splitlines()[0]})")
                wandb.teardown()  # otherwise the service keeps the id: "run ID is in use"
        return wandb.init(mode="offline", settings=settings, **arguments)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to global step `step`; steps never go back (wandb drops those that do)."""
        if self._run is None:
            return
        try:
            self._run.log(dict(values), step=step)
        except Exception as error:  # no failure of wandb may stop training
            self._run = None
            self._announce(f"wandb failed at step {step}; logging to it ends here ({type(error).__name__}: {error})")

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put scores of a finished evaluation into the run's summary, as DATASET/PROTOCOL/METRIC of the pretrained backbone.

        All rows are a table, `evaluation`. A second call replaces both.
        """
        if self._run is None or not rows:
            return
        try:
            import wandb

            columns = [key for key in SCORE_COLUMNS if any(key in row for row in rows)]
            table = wandb.Table(columns=columns, data=[[row.get(key) for key in columns] for row in rows])
            self._run.log({"evaluation": table})
            own = [row for row in rows if row["backbone"] == "pretrained"]
            self._run.summary.update(
                {f"{row['dataset']}/{row['protocol']}/{row['metric']}": row["value"] for row in own}
            )
        except Exception as error:  # no failure of wandb may end a run
            self._run = None
            self._announce(f"wandb did not take the scores ({type(error).__name__}: {error})")

    def finish(self, exit_code: int = 0) -> None:
        """End the run; any code but 0 marks it as failed. A second call does nothing."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            self._announce(f"wandb could not finish the run ({type(error).__name__}: {error})")


def _stable_id(run_dir: Path, run_id: str | None, announce: Callable[[str], None]) -> str:
    """`run_id`, or the one in the folder, or a new one; kept in the folder. A damaged file is set aside, with a message."""
    if run_id is not None and not ID.fullmatch(run_id):
        raise ValueError(f"run_id must be {ID_WORDS}, got {run_id[:80]!r}")
    file = run_dir / ID_FILE
    try:
        known = read_bytes(file, MOST_BYTES).decode("ascii").strip()
        damage = None if ID.fullmatch(known) else f"an id is {ID_WORDS}"
    except FileNotFoundError:
        known, damage = "", None
    except OSError as error:
        known, damage = "", error.strerror
    except UnicodeDecodeError:
        known, damage = "", f"an id is {ID_WORDS}"
    if damage is not None:
        aside = set_aside(file)
        announce(f"{file} is damaged ({damage}): kept as {aside.name}; wandb gets a new run")
        known = ""
    run_id = run_id or known or _id_of_agent() or secrets.token_hex(4)
    if run_id != known:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(file, run_id + "\n")
    return run_id


def _id_of_agent() -> str | None:
    """The id that `wandb agent` gives to the run that it starts; wandb itself ignores any other one."""
    chosen = os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""
    return chosen if ID.fullmatch(chosen) else None


def _require_credentials(server: str) -> None:
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return
    hosts = {urlsplit(server).netloc, "api.wandb.ai"}  # the second is the old name, which newer versions accept too
    try:
        known = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        known = {}
    if hosts.isdisjoint(known):
        raise ValueError(
            f"tracking.wandb=online needs an API key for {server}: set WANDB_API_KEY (or run `wandb login` once), "
            "or choose tracking.wandb=offline"
        )


@contextmanager
def _quiet_surroundings(run_dir: Path) -> Iterator[None]:
    """While wandb starts: write its logs to the run folder and send no error reports, unless the user enables them."""
    wanted = {"WANDB_CACHE_DIR": str(run_dir / "wandb" / "cache"), "WANDB_ERROR_REPORTING": "false"}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
