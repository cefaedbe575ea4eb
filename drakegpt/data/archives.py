"""Unpack the files of a zip archive, of which nothing is trusted.

Members are written under numbers, never under their names, so that no name can lead out of
the folder. An archive is refused as a whole for a name that tries to, and for more than
`MAX_UNPACKED` bytes or `MAX_MEMBERS` members, whatever its index says of their sizes.
"""

import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from drakegpt.data.corpus import CHUNK, ByteProgress
from drakegpt.errors import FetchError, is_disk_full, is_out_of_memory, show_value

MAX_UNPACKED = 4_000_000_000  # bytes of all members
MAX_MEMBERS = 100_000
UNSAFE_NAME = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)")
FIX = "Unpack it yourself, look at what it holds, and add the folder."


@dataclass(frozen=True)
class Member:
    """A file of an archive: its name there, and where it is now; or why it is left out."""

    name: str
    path: Path | None
    reason: str = ""


def unpack(
    archive: Path, source: str, folder: Path, report: ByteProgress | None = None
) -> list[Member]:
    """Unpack the files of an archive into `folder`, in the order of their names there.

    Links, encrypted members and unknown methods of compression are left out. Raises
    `FetchError`. `source`: the archive's name in messages.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check(entries, source)
            done, total = 0, sum(entry.file_size for entry in entries)
            members = []
            for number, entry in enumerate(entries):
                reason = _find_fault(entry)
                path = None if reason else folder / str(number)
                if path:
                    done += _copy(opened, entry, path)
                    if report:
                        report(done, max(done, total))
                members.append(Member(entry.filename, path, reason))
    except FetchError:
        raise
    except OSError as error:
        if is_disk_full(error):
            fix = "Free some space, then try again."
            raise FetchError(f"The disk is full at {folder}.", fix) from error
        raise FetchError(f"{source} cannot be read: {error.strerror or error}.", FIX) from error
    except Exception as error:  # damage makes zipfile raise a dozen kinds of exceptions
        if is_out_of_memory(error):
            raise
        raise FetchError(f"{source} is a damaged archive ({error}).", "Get it again.") from error
    return sorted(members, key=lambda member: member.name)


def _check(entries: list[zipfile.ZipInfo], source: str) -> None:
    """Raise `FetchError` for an archive that is too large or has a name that leads elsewhere."""
    for entry in entries:
        if UNSAFE_NAME.match(entry.filename):
            raise FetchError(
                f"{source} has a member that leads out of it: {show_value(entry.filename)}.", FIX
            )
    if len(entries) > MAX_MEMBERS or sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise FetchError(
            f"{source} has more than {MAX_MEMBERS:,} files or {MAX_UNPACKED:,} bytes unpacked.", FIX
        )


def _find_fault(entry: zipfile.ZipInfo) -> str:
    """Return why a member is not unpacked; "" if it is."""
    if entry.flag_bits & 1:
        return "encrypted"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed by an unusual method"
    return ""


def _copy(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> int:
    """Copy a member to a new file; returns its bytes.

    A wrong size in the index is harmless: zipfile stops there, and the checksum does not match.
    """
    copied = 0
    with opened.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(CHUNK):
            copied += target.write(chunk)
    return copied
