"""The user's folders: one home for everything, moved by `DRAKEGPT_HOME`.

The folders are computed at each call, never at import. What writes into one creates it.
"""

import os
from pathlib import Path

from drakegpt.errors import UsageError, shorten

HOME_VARIABLE = "DRAKEGPT_HOME"


def root() -> Path:
    """Return the folder that holds datasets, runs, sweeps, figures and generated texts."""
    if override := os.environ.get(HOME_VARIABLE):
        return expand_user(Path(override))
    from platformdirs import user_data_path

    return user_data_path("drakegpt", appauthor=False)


def expand_user(path: Path) -> Path:
    """Replace a leading `~` or `~name` by that user's folder; raises `UsageError` if unknown."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"The folder that '{path.parts[0]}' stands for in '{shorten(str(path))}' is unknown.",
            "Write the path out.",
        ) from error


def datasets() -> Path:
    """Return the folder of prepared datasets, one subfolder each."""
    return root() / "data"


def runs() -> Path:
    """Return the folder of training runs, one subfolder each."""
    return root() / "runs"


def generations() -> Path:
    """Return the folder of generated texts."""
    return root() / "generations"


def comparisons() -> Path:
    """Return the folder of figures drawn by `compare`."""
    return root() / "comparisons"


def sweeps() -> Path:
    """Return the folder of hyperparameter searches, one subfolder each."""
    return root() / "sweeps"


def trials() -> Path:
    """Return the folder of what short trials on this machine decided."""
    return root() / "trials"


def clear_leftovers() -> None:
    """Remove what killed processes left in the home and in the system's temporary folder.

    On Windows only temporary folders, for the other leftovers have no lock there.
    """
    import tempfile

    from drakegpt import files

    files.remove_leftovers(Path(tempfile.gettempdir()), temporary_folders_only=True)
    parents = (datasets(), runs(), sweeps(), comparisons())
    folders = [folder for parent in parents for folder in (parent, *_list_subfolders(parent))]
    folders += [run / "checkpoints" for run in _list_subfolders(runs())]
    folders += [sweep / "locks" for sweep in _list_subfolders(sweeps())]
    for folder in (*folders, generations(), trials()):
        files.remove_leftovers(folder, temporary_folders_only=os.name != "posix")


def _list_subfolders(parent: Path) -> list[Path]:
    try:
        return [Path(e.path) for e in os.scandir(parent) if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
