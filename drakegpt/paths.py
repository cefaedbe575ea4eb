"""Where everything lives: one home folder per user, moved by `DRAKEGPT_HOME`.

The folders are computed at each call, never at import, and are created by those
who write into them. `write_atomically` is the only way files come into the home.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from platformdirs import user_data_path

HOME_VARIABLE = "DRAKEGPT_HOME"


def home() -> Path:
    """The folder that holds datasets, runs, figures and generated texts."""
    override = os.environ.get(HOME_VARIABLE)
    return Path(override).expanduser() if override else user_data_path("drakegpt", appauthor=False)


def datasets() -> Path:
    """Prepared datasets, a folder each."""
    return home() / "data"


def runs() -> Path:
    """Training runs, a folder each."""
    return home() / "runs"


def generations() -> Path:
    """Generated texts."""
    return home() / "generations"


def comparisons() -> Path:
    """Figures drawn by `compare`."""
    return home() / "comparisons"


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` only if the block succeeds.

    The bytes go to a temporary file beside `path`, are forced to the disk, and
    take its place in one step: a reader or a crash sees the old file or the
    new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with line feeds, atomically."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))
