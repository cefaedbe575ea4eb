"""Mirrors a run to Weights & Biases, or to a record on disk that can be uploaded later.

The run's own metrics.jsonl stays the truth. Whatever happens to this mirror (no network, no
key, a fault in wandb itself), training goes on: there is one warning, and no call here waits
much longer than `PATIENCE` seconds.
"""

import logging
import netrc
import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from drakegpt import paths

if TYPE_CHECKING:
    from drakegpt.training.trainer import Evaluation

PROJECT = "drakegpt"
PATIENCE = 10.0  # seconds for the server to answer, and again for the last upload
MINIMA = ("train/loss", "val/loss")  # W&B shows the lowest, not the last

# wandb leaves by sys.exit when its service process ends badly.
FAULTS = (Exception, SystemExit)
UNTOUCHED = "Training and its metrics.jsonl are not affected."

log = logging.getLogger("drakegpt")


class WandbTracker:
    """One run in W&B. Made with what the run is called; inert once anything went wrong."""

    def __init__(
        self,
        name: str,
        identity: str,
        mode: Literal["offline", "online"],
        config: Mapping[str, Any],
    ) -> None:
        """`identity` stays the same when a run is resumed: W&B then continues its run."""
        self._run: Any = None  # None: inert
        self._folder: Path | None = None
        obstacle = ""
        with self._inert_after_faults("cannot record this run"):
            if mode == "online":
                try:
                    self._run = _start(name, identity, config, _api_key())
                except FAULTS as fault:
                    obstacle = _in_one_line(fault)
                    _stop_service()
            if self._run is None:
                self._run = _start(name, identity, config, None)
            self._folder = Path(self._run.dir).parent
            for metric in MINIMA:
                self._run.define_metric(metric, summary="min")
        if obstacle and self._run:
            log.warning(
                "Weights & Biases cannot be reached or refuses this run (%s), so it is recorded "
                "offline; upload it later with: %s",
                obstacle,
                self._upload_command,
            )

    def log(self, evaluation: "Evaluation") -> None:
        """Record one evaluation at its iteration.

        W&B drops a step below the last it has. A resumed run goes back to its last checkpoint,
        but makes the very same evaluations from there on, so what is dropped is there already.
        """
        with self._inert_after_faults("stopped recording this run"):
            if self._run:
                values = {
                    "train/loss": evaluation.train_loss,
                    "val/loss": evaluation.val_loss,
                    "learning_rate": evaluation.learning_rate,
                    "tokens_per_second": evaluation.tokens_per_second,
                }
                # Without commit, wandb would hold the row back until the next one comes.
                self._run.log(values, step=evaluation.iteration, commit=True)

    def finish(self, figure: Path | None, exit_code: int = 0) -> None:
        """Add the figure, a PNG, one step after the last; upload the rest; end the service."""
        with self._inert_after_faults("did not take the end of this run"):
            if self._run and figure:
                import wandb

                self._run.log({"figure": wandb.Image(str(figure))})
            if self._run:
                self._run.finish(exit_code)
        self._run = None
        _stop_service()

    @property
    def _upload_command(self) -> str:
        return f'wandb sync "{self._folder}"'

    @contextmanager
    def _inert_after_faults(self, consequence: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as fault:
            self._run = None
            later = f" Upload what it has with: {self._upload_command}" if self._folder else ""
            reason = _in_one_line(fault)
            log.warning("Weights & Biases %s (%s). %s%s", consequence, reason, UNTOUCHED, later)


def _start(name: str, identity: str, config: Mapping[str, Any], api_key: str | None) -> Any:
    """Start wandb's service process and the run: online with a key, offline without."""
    _keep_folders_at_home()
    import wandb

    settings = wandb.Settings(
        init_timeout=PATIENCE,
        finish_timeout=PATIENCE,
        finish_timeout_raises=True,
        x_service_wait=PATIENCE,
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        label_disable=True,
        save_code=False,
        stop_on_fatal_error=False,
        symlink=False,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    wandb.setup(settings)  # `init` alone is silent too late, and starts its service as it likes
    return wandb.init(
        project=PROJECT,
        id=identity,
        name=name,
        config=dict(config),
        mode="online" if api_key else "offline",
        resume="allow",
        reinit="finish_previous",
        # Given a key, it neither asks at the terminal nor writes to ~/.netrc. `setup` with a key
        # would send it to the public server, whatever WANDB_BASE_URL says.
        settings=wandb.Settings(api_key=api_key) if api_key else None,
    )


def _stop_service() -> None:
    """End wandb's service process; it would stay until this one ends."""
    with suppress(*FAULTS):
        import wandb

        wandb.teardown()


def _keep_folders_at_home() -> None:
    """Tell wandb, before it is imported, to write in the app's home and report to nobody."""
    folder = paths.home() / "wandb"
    # wandb adds "wandb" to WANDB_DIR itself: the run's folders end up beside the others.
    os.environ["WANDB_DIR"] = str(paths.home())
    for kind in ("data", "cache", "config", "artifact"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        os.environ[f"WANDB_{kind.upper()}_DIR"] = str(folder / kind)
    os.environ["WANDB_ERROR_REPORTING"] = "false"


def _api_key() -> str:
    """The user's key, from where wandb looks for it; raises `LookupError` if there is none."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    _keep_folders_at_home()
    import wandb

    url = os.environ.get("WANDB_BASE_URL")
    # Keys for the public server may be kept under the name it had before it moved.
    hosts = (
        [urlsplit(url).netloc]
        if url
        else [urlsplit(wandb.Settings().base_url).netloc, "api.wandb.ai"]
    )
    for file in (os.environ.get("NETRC") or "~/.netrc", "~/_netrc"):
        with suppress(OSError, ValueError, netrc.NetrcParseError):
            entries = netrc.netrc(Path(file).expanduser())
            for entry in map(entries.authenticators, hosts):
                if entry and entry[2]:
                    return entry[2]
    raise LookupError("no API key; run `wandb login` or set WANDB_API_KEY")


def _in_one_line(fault: BaseException) -> str:
    return textwrap.shorten(str(fault) or type(fault).__name__, 200)
