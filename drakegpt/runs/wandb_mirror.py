"""Mirrors a run to Weights & Biases, online or as a record on disk to upload later.

The run's metrics.jsonl stays the source of truth. If W&B fails (no key, no network, an error
in wandb itself), training continues after one warning, and waits about `PATIENCE` seconds at
most. wandb is imported only here and only when it is used: the import takes a second.
"""

import logging
import netrc
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from drakegpt import home
from drakegpt.wording import SHORT_SPLITS, join

if TYPE_CHECKING:
    from drakegpt.training.reports import Evaluation

Mode = Literal["offline", "online"]
PATIENCE = 10.0  # seconds to wait for the server at the start, and for the last upload at the end
ERRORS = (Exception, SystemExit)  # wandb exits where its service process ended badly

logger = logging.getLogger("drakegpt")


class WandbTracker:
    """One run in W&B; after wandb's first error it does nothing."""

    def __init__(
        self,
        name: str,
        identity: str,
        mode: Mode,
        config: Mapping[str, Any],
        group: str = "",
    ) -> None:
        """`identity` is the same each time a run is resumed: W&B then continues its run.

        Runs of one `group` are shown together.
        """
        self._run: Any = None  # None: not recording
        self._upload = ""  # the command that uploads the record
        self._lowest: dict[str, float] = {}
        self._losses = ("train/loss", _name_loss(config.get("select_on", "validation")))
        obstacle = ""
        with self._guarded("cannot record this run"):
            if mode == "online":
                try:
                    self._run = _start_run(name, identity, config, group, _api_key())
                except ERRORS as error:
                    obstacle = _format_error(error)
                    _stop_service()
            if not self._run:
                self._run = _start_run(name, identity, config, group, None)
            online = ["--include-online"] if self._run.settings.mode == "online" else []
            self._upload = join(["wandb", "sync", *online, str(Path(self._run.dir).parent)])
            self._run.define_metric("*", step_metric="iteration")
            for loss in self._losses:
                self._run.define_metric(loss, step_metric="iteration", summary="min")
        if obstacle and self._run:
            text = "Weights & Biases is not available (%s): recorded offline. Upload later with: %s"
            logger.warning(text, obstacle, self._upload)

    def log(self, evaluation: "Evaluation") -> None:
        """Record an evaluation at its iteration.

        A resumed run logs its earlier evaluations again. Their values are the same, so it does
        no harm that W&B drops a step before its last or, when it uploads a second record of the
        run, moves it: curves are drawn over `iteration`.
        """
        values = {
            "iteration": evaluation.iteration,
            "train/loss": evaluation.train_loss,
            _name_loss(evaluation.scored_on): evaluation.val_loss,
            "learning_rate": evaluation.learning_rate,
            "tokens_per_second": evaluation.tokens_per_second,
        }
        for loss in self._losses:
            self._lowest[loss] = min(values[loss], self._lowest.get(loss, values[loss]))
        with self._guarded("stopped recording this run"):
            if self._run:  # without `commit` wandb holds it back until the next one
                self._run.log(values, step=evaluation.iteration, commit=True)

    def finish(self, figure: Path | None, exit_code: int = 0) -> None:
        """Log the figure, a PNG, one step after the last; upload the rest; stop the service."""
        with self._guarded("did not take the end of this run"):
            if self._run:
                if figure:
                    from wandb import Image

                    self._run.log({"figure": Image(str(figure))})
                # wandb's own minima miss the steps that it dropped.
                self._run.summary.update({loss: {"min": low} for loss, low in self._lowest.items()})
                self._run.finish(exit_code)
        self._run = None
        _stop_service(exit_code)

    @contextmanager
    def _guarded(self, consequence: str) -> Iterator[None]:
        """Turn an error into a warning and stop recording, so that it is the only one."""
        try:
            yield
        except ERRORS as error:
            self._run = None
            text = "Weights & Biases %s (%s). Training and metrics.jsonl are not affected.%s"
            upload = f" Upload what was recorded with: {self._upload}" if self._upload else ""
            logger.warning(text, consequence, _format_error(error), upload)


def _name_loss(scored_on: str) -> str:
    """Return the name of the held-out loss in W&B, by the setting `select_on`."""
    return f"{SHORT_SPLITS[scored_on]}/loss"


def _start_run(
    name: str, identity: str, config: Mapping[str, Any], group: str, api_key: str | None
) -> Any:
    """Start wandb's service process and the run in it: online with a key, offline without."""
    _set_folders()
    import wandb

    unwanted = ["disable_code", "disable_git", "disable_job_creation", "label_disable"]
    unwanted += ["x_disable_machine_info", "x_disable_meta", "x_disable_stats"]
    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=PATIENCE,
        finish_timeout=PATIENCE,
        finish_timeout_raises=True,
        x_service_wait=PATIENCE,
        stop_fn=lambda: None,  # else the server could interrupt training
        symlink=False,
        x_save_requirements=False,
        **dict.fromkeys(unwanted, True),
    )
    wandb.setup(settings)  # first: `init` is not silent before it has logged in
    return wandb.init(
        project="drakegpt",
        id=identity,
        name=name,
        group=group or None,
        config=dict(config),
        mode="online" if api_key else "offline",
        resume="allow",
        reinit="finish_previous",
        # With a key wandb neither prompts nor writes to ~/.netrc. The key is given here because
        # `setup` would send it to the public server, not WANDB_BASE_URL.
        settings=wandb.Settings(api_key=api_key) if api_key else None,
    )


def _stop_service(exit_code: int = 0) -> None:
    """Stop wandb's service process, which otherwise lives as long as this one."""
    if wandb := sys.modules.get("wandb"):
        with suppress(*ERRORS):
            wandb.teardown(exit_code)


def _set_folders() -> None:
    """Make wandb write into drakegpt's home only, and send no error reports."""
    os.environ["WANDB_DIR"] = str(home.root())  # it adds the folder "wandb" itself
    for kind in ("data", "cache", "config", "artifact"):
        folder = home.root() / "wandb" / kind
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"WANDB_{kind.upper()}_DIR"] = str(folder)
    os.environ["WANDB_ERROR_REPORTING"] = "false"


def _api_key() -> str:
    """Return the key from the environment or netrc; raises `LookupError` if there is none."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    _set_folders()
    from wandb import Settings

    url = os.environ.get("WANDB_BASE_URL")
    # Older keys are stored under the public server's former name.
    hosts = [urlsplit(url or Settings().base_url).netloc, *([] if url else ["api.wandb.ai"])]
    if key := _find_in_netrc(hosts):
        return key
    raise LookupError("no API key: run `wandb login` or set WANDB_API_KEY")


def has_api_key() -> bool:
    """Tell whether there is a key, without importing wandb or making folders.

    A key that is stored under a name of the public server that wandb alone knows is not seen.
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    url = os.environ.get("WANDB_BASE_URL")
    return bool(_find_in_netrc([urlsplit(url).netloc] if url else _PUBLIC_HOSTS))


# The public server's names, in the order in which wandb has used them.
_PUBLIC_HOSTS = ["api.wandb.ai", "api.forge.coreweave.com"]


def _find_in_netrc(hosts: list[str]) -> str:
    """Return the key of the first of these hosts that has one, else ""."""
    for file in (os.environ.get("NETRC") or "~/.netrc", "~/_netrc"):
        with suppress(OSError, RuntimeError, ValueError, netrc.NetrcParseError):
            entries = netrc.netrc(Path(file).expanduser())
            for entry in map(entries.authenticators, hosts):
                if entry and entry[2]:
                    return entry[2]
    return ""


def _format_error(error: BaseException) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 200)
