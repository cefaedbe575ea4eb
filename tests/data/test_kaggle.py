"""The download from Kaggle: the real client against a server of our own on 127.0.0.1.

Each group of cases runs in one subprocess, because the client reads its environment when it
is imported. The driver prints nothing, so whatever shows up on its stdout or stderr got
there through a leak in the library.
"""

import io
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from kaggle_server import GOOD_TOKEN, Answer, KaggleServer, environment

from drakegpt.data.kaggle import describe_credentials

MEMBER = "csv/Drake.csv"
CSV = b",Artist,Lyric\n" + b"".join(b"%d,Drake,started from the bottom\n" % i for i in range(9000))
HTML = b"<!DOCTYPE html><html><title>Log in to the airport network, please</title></html>"


def pack(*entries, method=zipfile.ZIP_DEFLATED):
    """Zip (name or ZipInfo, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def forge(archive, local_offset, central_offset, field):
    """Overwrite a header field of a one-entry archive in both places that hold it."""
    forged, central = bytearray(archive), archive.rfind(b"PK\x01\x02")
    forged[local_offset : local_offset + len(field)] = field
    forged[central + central_offset : central + central_offset + len(field)] = field
    return bytes(forged)


NESTED = pack((MEMBER, CSV))
HOSTILE = pack(
    ("../escaped.csv", CSV),
    ("../../escaped.csv", CSV),
    ("/tmp/drakegpt-escaped.csv", CSV),
    (link("csv"), "/tmp"),
    (link("Drake.csv"), "/etc/passwd"),
    (MEMBER, CSV),
)
ANSWERS = {
    "csv": Answer(CSV),
    "zip": Answer(pack(("Drake.csv", CSV)), "Drake.csv.zip"),
    "nested": Answer(NESTED, "archive.zip"),
    "zip-named-csv": Answer(NESTED, "Drake.csv"),
    "csv-named-zip": Answer(CSV, "Drake.csv.zip"),
    "odd-name": Answer(CSV, "..%2F..%2Fescaped"),
    "unsized": Answer(CSV, sized=False),
    "cut-once": Answer(CSV, cuts=1),
    "hostile": Answer(HOSTILE, "archive.zip"),
    **{f"status-{code}": Answer(status=code) for code in (401, 403, 404, 429, 500, 503)},
    "silent": Answer(silent=True),
    "cut": Answer(CSV, cuts=99),
    "stalls": Answer(CSV, stalls=True),
    "truncated": Answer(NESTED[: len(NESTED) // 2], "archive.zip"),
    "corrupt": Answer(forge(NESTED, 14, 16, b"\1\2\3\4"), "archive.zip"),
    "html": Answer(HTML),
    "json": Answer(b'{"message": "no, sorry"}'),
    "binary": Answer(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR,"),
    "empty": Answer(b""),
    "other": Answer(pack(("csv/Adele.csv", CSV), ("\x1b[2Jcsv", CSV)), "archive.zip"),
    "empty-zip": Answer(pack(), "archive.zip"),
    "link": Answer(pack((link(MEMBER), "/etc/passwd")), "archive.zip"),
    "encrypted": Answer(forge(NESTED, 6, 8, b"\1"), "archive.zip"),
    "bzip2": Answer(pack((MEMBER, CSV), method=zipfile.ZIP_BZIP2), "archive.zip"),
    "html-in-zip": Answer(pack((MEMBER, HTML)), "archive.zip"),
    "bomb": Answer(NESTED, "archive.zip"),
    "lying-bomb": Answer(forge(NESTED, 22, 24, (50_000).to_bytes(4, "little")), "archive.zip"),
    "huge": Answer(CSV),
    "huge-unsized": Answer(CSV, sized=False),
    "full-download": Answer(CSV),
    "full-unpack": Answer(NESTED, "archive.zip"),
}
GOOD = list(ANSWERS)[:9]
SETTINGS = {
    "silent": {"TIMEOUT": 0.4},
    "stalls": {"TIMEOUT": 0.4, "RETRIES": 1},
    **{name: {"MAX_BYTES": 100_000} for name in ("bomb", "lying-bomb", "huge", "huge-unsized")},
}

DRIVER = """
import errno, io, json, os, pathlib, sys, time
from drakegpt.data import kaggle
from drakegpt.errors import FetchError

cases, member, folder = json.loads(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
time.sleep = lambda seconds: None  # the client's pauses between two tries
ORIGINAL = {name: getattr(kaggle, name) for name in ("TIMEOUT", "RETRIES", "MAX_BYTES")}
STDOUT, outcomes = sys.stdout, {}

class Full(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

def no_space(opened, written):
    "What `open` is on a disk that gets full as soon as a file named `written` is written."
    def full(path, mode="r", *rest, **named):
        hit = pathlib.Path(path).name == written and mode[0] in "wa"
        return Full() if hit else opened(path, mode, *rest, **named)
    return full

for case, asked in cases.items():
    for name, value in {**ORIGINAL, **asked["settings"]}.items():
        setattr(kaggle, name, value)
    os.environ.update(asked["environment"])
    before, opened = dict(os.environ), pathlib.Path.open
    if case == "full-download":
        sys.modules["kaggle.api.kaggle_api_extended"].open = no_space(open, "Drake.csv")
    if case == "full-unpack":
        pathlib.Path.open = no_space(opened, "out")
    mine, progress = folder / case / "deep", []
    try:
        path = kaggle.download_member(
            "owner/" + case, member, mine, lambda *step: progress.append(step)
        )
        outcome = {"path": str(path.relative_to(mine)), "text": path.read_text()}
    except FetchError as error:
        outcome = {"problem": error.problem, "fix": error.fix}
    pathlib.Path.open = opened
    if "kaggle.api.kaggle_api_extended" in sys.modules:
        sys.modules["kaggle.api.kaggle_api_extended"].open = open
    outcome["progress"] = progress
    outcome["left"] = sorted(str(p.relative_to(folder / case)) for p in mine.rglob("*"))
    outcome["restored"] = sys.stdout is STDOUT and before == dict(os.environ)
    for name in asked["environment"]:
        del os.environ[name]
    outcomes[case] = outcome
(folder / "outcomes.json").write_text(json.dumps(outcomes))
"""
