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
import zipfile
from itertools import pairwise
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
    "cut-once": Answer(CSV, cuts=1),
    "hostile": Answer(HOSTILE, "archive.zip"),
    **{f"status-{code}": Answer(status=code) for code in (401, 403, 404, 429, 500, 503)},
    "silent": Answer(silent=True),
    "cut": Answer(CSV, cuts=99),
    "stalls": Answer(CSV, stalls=True),
    "truncated": Answer(NESTED[: len(NESTED) // 2], "archive.zip"),
    "corrupt": Answer(forge(NESTED, 14, 16, b"\1\2\3\4"), "archive.zip"),
    "html": Answer(HTML),
    "bom-html": Answer(b"\xef\xbb\xbf\r\n" + HTML),
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
    "unsized": Answer(CSV, sized=False),
}

DRIVER = """
import errno, io, json, os, pathlib, sys, time
from drakegpt.data import kaggle
from drakegpt.errors import FetchError

time.sleep = lambda seconds: None  # the client's pauses between two tries
folder, outcomes = pathlib.Path(sys.argv[1]), {}
# PRELUDE
for slug in sys.argv[2:]:
    mine, progress, before = folder / slug / "deep", [], (dict(os.environ), sys.stdout)
    try:
        path = kaggle.download_member(
            "owner/" + slug, "csv/Drake.csv", mine, lambda *step: progress.append(step)
        )
        outcome = {"path": str(path.relative_to(mine)), "text": path.read_text()}
    except FetchError as error:
        outcome = {"problem": error.problem, "fix": error.fix}
    assert before == (dict(os.environ), sys.stdout), "not restored"
    left = sorted(str(p.relative_to(folder / slug)) for p in (folder / slug).rglob("*"))
    outcomes[slug] = {**outcome, "progress": progress, "left": left}
sender = getattr(sys.modules.get("requests.adapters"), "HTTPAdapter", None)
client = sys.modules.get("kaggle.api.kaggle_api_extended")
assert sender is None or sender.send.__qualname__ == "HTTPAdapter.send", "not restored"
assert client is None or client.tqdm.__module__.startswith("tqdm"), "not restored"
pathlib.Path(folder, "outcomes.json").write_text(json.dumps(outcomes))
"""
FULL_DISK = """
import io
def write(self, data):
    raise OSError(errno.ENOSPC, "No space left on device")
Full = type("Full", (io.BytesIO,), {"write": write})
"""


@pytest.fixture(scope="module")
def server():
    with KaggleServer(ANSWERS) as running:
        yield running


@pytest.fixture(scope="module")
def fetch(server, tmp_path_factory):
    """Download `slugs` in one fresh process that prints nothing; return the outcome of each."""

    def run(*slugs, prelude="", token=None, address=None, home_files=None, **variables):
        folder = tmp_path_factory.mktemp("kaggle")
        home = folder / "home"
        for name, content in (home_files or {}).items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(content)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("KAGGLE", "XDG"))}
        result = subprocess.run(
            [sys.executable, "-c", DRIVER.replace("# PRELUDE", prelude), str(folder), *slugs],
            env={**clean, **environment(address or server.address, str(home), token), **variables},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert {p.name for p in folder.iterdir()} <= {"home", "outcomes.json", *slugs}
        return json.loads((folder / "outcomes.json").read_text())

    return run


def assert_failed(outcome, *fragments):
    """One message with all of `fragments`, and nothing left behind."""
    message = f"{outcome.get('problem')} {outcome.get('fix')}"
    for fragment in fragments:
        assert fragment.lower() in message.lower()
    assert outcome["left"] in (["deep"], [])


# What works, without any credentials

GOOD = ["csv", "zip", "nested", "zip-named-csv", "csv-named-zip", "odd-name", "cut-once"]


@pytest.fixture(scope="module")
def downloads(fetch):
    return fetch(*GOOD, "hostile", "unsized")


@pytest.mark.parametrize("slug", [*GOOD, "hostile", "unsized"])
def test_the_file_arrives_alone_and_whole(downloads, slug):
    assert downloads[slug]["path"] == "Drake.csv"
    assert downloads[slug]["text"].encode() == CSV
    assert downloads[slug]["left"] == ["deep", "deep/Drake.csv"]


def test_nothing_escapes_a_hostile_archive(downloads):
    assert downloads["hostile"]["left"] == ["deep", "deep/Drake.csv"]
    assert not Path("/tmp/drakegpt-escaped.csv").exists()


def test_without_credentials_the_request_is_anonymous(downloads, server):
    request = server.asked("csv")[0]
    assert request.authorization is None
    assert request.message["fileName"] == "csv/Drake.csv"
    assert request.message["ownerSlug"] == "owner"


@pytest.mark.parametrize("slug", ["csv", "cut-once"])
def test_progress_rises_to_the_total(downloads, slug):
    done, totals = zip(*downloads[slug]["progress"], strict=True)
    assert len(done) > 3
    assert all(a < b for a, b in pairwise(done))
    assert done[-1] == len(CSV)
    assert set(totals) == {len(CSV)}


def test_progress_of_an_unknown_total(downloads):
    assert downloads["unsized"]["progress"][-1] == [len(CSV), None]


# What the server refuses or sends wrong

PAGE = "https://www.kaggle.com/datasets/owner"
REFUSED = {
    "status-401": ["asks for a login", "HTTP 401", "kaggle.com/settings", "KAGGLE_API_TOKEN"],
    "status-403": ["HTTP 403", f"{PAGE}/status-403", "browser", "accept its terms"],
    "status-404": ["no csv/Drake.csv", "owner/status-404", "HTTP 404", f"{PAGE}/status-404"],
    "status-429": ["too many requests", "HTTP 429", "wait"],
    "status-500": ["HTTP 500", "try again later", f"{PAGE}/status-500"],
    "status-503": ["HTTP 503", "try again later"],
    "cut": ["stopped after", f"of {len(CSV):,} bytes", "check the network"],
    "truncated": ["archive", "damaged", "not a zip file", "try again"],
    "corrupt": ["archive", "damaged", "CRC", "try again"],
    "html": ["not csv/Drake.csv", "<!DOCTYPE html>", "login page"],
    "bom-html": ["not csv/Drake.csv", "'<!DOCTYPE html>", "login page"],
    "json": ["not csv/Drake.csv", "no, sorry", "try again"],
    "binary": ["not csv/Drake.csv", "PNG"],
    "empty": ["not csv/Drake.csv", "is empty"],
    "other": ["no csv/Drake.csv", "'csv/Adele.csv', '\\x1b[2Jcsv'", "dataset's page"],
    "empty-zip": ["no csv/Drake.csv", "holds nothing"],
    "link": ["csv/Drake.csv is a symbolic link", "dataset's page"],
    "encrypted": ["csv/Drake.csv is encrypted", "dataset's page"],
    "bzip2": ["csv/Drake.csv is compressed", "does not accept"],
    "html-in-zip": ["not csv/Drake.csv", "<!DOCTYPE html>"],
}


@pytest.fixture(scope="module")
def refusals(fetch):
    return fetch(*REFUSED)


@pytest.mark.parametrize("slug", REFUSED)
def test_a_refusal_names_the_fault_and_the_fix(refusals, slug):
    assert_failed(refusals[slug], *REFUSED[slug])


@pytest.fixture(scope="module")
def oversized(fetch):
    return fetch("csv", "unsized", "bomb", "lying-bomb", prelude="kaggle.MAX_BYTES = 100_000")


@pytest.mark.parametrize("slug", ["csv", "unsized", "bomb"])
def test_a_file_over_the_cap_is_refused(oversized, slug):
    assert_failed(oversized[slug], "larger than the 100,000 bytes", "dataset's page")


def test_a_download_over_the_cap_stops_early(oversized):
    assert oversized["csv"]["progress"] == []
    assert oversized["unsized"]["progress"][-1][0] <= 100_000


def test_a_bomb_that_lies_about_its_size_is_damaged(oversized):
    assert_failed(oversized["lying-bomb"], "damaged", "CRC")


# Networks and disks


def test_a_server_that_stops_answering(fetch):
    limits = "kaggle.TIMEOUT, kaggle.RETRIES = 0.4, 1"
    outcomes = fetch("silent", "stalls", prelude=limits)
    assert_failed(outcomes["silent"], "did not answer within 0.4 seconds", "check the network")
    assert_failed(outcomes["stalls"], "stopped after", "check the network")


def test_a_login_that_is_never_answered(fetch):
    outcome = fetch("csv", prelude="kaggle.TIMEOUT = 0.4", token="silent")["csv"]
    assert_failed(outcome, "did not answer within 0.4 seconds")


def test_an_unreachable_server(fetch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        outcome = fetch("csv", address=address)["csv"]
    assert_failed(outcome, "cannot be reached", "check the network connection and its proxy")


def test_a_disk_that_gets_full_while_downloading(fetch):
    prelude = f"""{FULL_DISK}
import importlib, contextlib
with contextlib.redirect_stdout(io.StringIO()):
    client = importlib.import_module("kaggle.api.kaggle_api_extended")
client.open = lambda path, mode="r": Full() if path.endswith("Drake.csv") else open(path, mode)
"""
    assert_failed(fetch("csv", prelude=prelude)["csv"], "disk is full", "/csv/deep", "free some")


def test_a_disk_that_gets_full_while_unpacking(fetch):
    prelude = f"""{FULL_DISK}
real = pathlib.Path.open
pathlib.Path.open = lambda path, *how, **more: (
    Full() if how == ("wb",) else real(path, *how, **more)
)
"""
    outcome = fetch("nested", prelude=prelude)["nested"]
    assert_failed(outcome, "disk is full", "/nested/deep", "free some space")
    assert outcome["progress"]


def test_a_folder_that_cannot_be_made(fetch):
    prelude = "(folder / 'csv').mkdir(); (folder / 'csv' / 'deep').touch()"
    assert_failed(
        fetch("csv", prelude=prelude)["csv"],
        "cannot use",
        "csv/deep (file exists)",
        "may read and write",
    )


def test_a_configuration_folder_that_cannot_be_made(fetch):
    outcome = fetch("csv", KAGGLE_CONFIG_DIR="/dev/null/kaggle")["csv"]
    assert_failed(outcome, "cannot use /dev/null/kaggle (not a directory)")


@pytest.mark.parametrize("missing", ["six", "kaggle", "requests"])
def test_a_broken_installation_of_the_client(fetch, missing):
    outcome = fetch("csv", prelude=f"sys.modules[{missing!r}] = None")["csv"]
    assert_failed(outcome, "kaggle client cannot be loaded", missing, "pip install")


# Credentials


def test_a_good_token_is_sent(fetch, server):
    server.requests.clear()
    outcomes = fetch("csv", "status-403", token=GOOD_TOKEN)
    assert outcomes["csv"]["text"].encode() == CSV
    assert server.asked("csv")[0].authorization == f"Bearer {GOOD_TOKEN}"
    assert_failed(outcomes["status-403"], "HTTP 403", "accept its terms", "token's owner")


BAD_TOKENS = {
    "expired": "does not know them",
    "refused-401": "HTTP 401",
    "refused-403": "does not know them",
    "two\nlines": "cannot be read or sent",
    "snow\N{SNOWMAN}man": "cannot be read or sent",
    "long" * 100: "",  # the client takes it for a path, which some systems find too long
}


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_a_bad_token_is_reported_and_never_shown(fetch, server, token):
    server.requests.clear()
    outcome = fetch("csv", token=token)["csv"]
    assert_failed(outcome, "credentials in KAGGLE_API_TOKEN", BAD_TOKENS[token], "or remove them")
    assert token not in f"{outcome['problem']} {outcome['fix']}"
    assert server.asked("csv") == []


def test_a_bad_key_is_reported_with_the_place_where_it_is(fetch):
    files = {".kaggle/kaggle.json": '{"username": "drake", "key": "hunter2"}'}
    outcome = fetch("status-401", home_files=files)["status-401"]
    assert_failed(outcome, ".kaggle/kaggle.json were refused", "HTTP 401", "kaggle.com/settings")
    assert "hunter2" not in f"{outcome['problem']} {outcome['fix']}"


def test_a_key_that_cannot_be_sent_is_reported(fetch, server):
    server.requests.clear()
    outcome = fetch("csv", KAGGLE_USERNAME="\N{SNOWMAN}", KAGGLE_KEY="hunter2")["csv"]
    assert_failed(outcome, "KAGGLE_USERNAME, KAGGLE_KEY were refused", "cannot be sent")
    assert server.asked("csv") == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_oauth_file_does_not_become_an_anonymous_try(fetch, server, status):
    server.requests.clear()
    login = {"refresh_token": f"refused-{status}", "username": "drake"}
    outcome = fetch("csv", home_files={".kaggle/credentials.json": json.dumps(login)})["csv"]
    assert_failed(outcome, ".kaggle/credentials.json were refused")
    assert server.asked("csv") == []


def test_credentials_are_described_by_place_and_not_by_value(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("KAGGLE", "XDG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert describe_credentials() == ""
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    (tmp_path / ".config" / "kaggle").mkdir(parents=True)
    (tmp_path / ".config" / "kaggle" / "kaggle.json").write_text("secret")
    assert describe_credentials() == f"KAGGLE_API_TOKEN, {tmp_path}/.config/kaggle/kaggle.json"
