"""The real wandb, in a process of its own, with a W&B server of ours on 127.0.0.1 or none.

Each process checks by itself that wandb is silent, leaves no process behind, and writes
nowhere but in the home.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from base64 import b64encode
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from drakegpt.runs.wandb_mirror import PATIENCE, has_api_key
from drakegpt.training.reports import Evaluation

KEY = "0123456789abcdef" * 2 + "01234567"
CONFIG = {"model": "BigramLM", "max_lr": 0.005, "batch_size": 32}
LOSSES = [(3.0, 3.1), (2.0, 2.5), (2.4, 2.7)]  # the last are not the lowest
EVALUATIONS = [
    Evaluation(10 * number, train, val, 1e-3 * number, 500.0 + number, 1.0 * number)
    for number, (train, val) in enumerate(LOSSES, start=1)
]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals, ps and terminals of POSIX")
SLACK = 8  # seconds for importing wandb and starting its service, on a slow machine

# One life of a tracker. `before` runs first of all, `between` before the second evaluation.
LIFE = """
import json, logging, os, signal, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace

from drakegpt.runs import wandb_mirror

plan = json.loads(sys.argv[1])
assert "wandb" not in sys.modules
warnings, signals, notes = [], [], []
handler = logging.Handler()
handler.emit = lambda record: warnings.append(record.getMessage())
logging.getLogger("drakegpt").addHandler(handler)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: signals.append(number))
wandb_mirror.PATIENCE = plan["patience"]

def services():
    command = ["ps", "-A", "-ww", "-o", "ppid=,pid=,stat=,args="]
    listing = subprocess.run(command, capture_output=True)
    lines = [line.split(None, 3) for line in listing.stdout.decode().splitlines()]
    return [int(pid) for ppid, pid, state, command in lines
            if int(ppid) == os.getpid() and "wandb-core" in command and state[0] != "Z"]

exec(plan["before"])
times = [time.monotonic()]
tracker = wandb_mirror.WandbTracker("my run", plan["identity"], plan["mode"], plan["config"])
times.append(time.monotonic())
during = services()
for number, evaluation in enumerate(plan["evaluations"]):
    if number == 1:
        exec(plan["between"])
    tracker.log(SimpleNamespace(**evaluation))
times.append(time.monotonic())
tracker.finish(Path(plan["figure"]) if plan["figure"] else None, plan["exit_code"])
times.append(time.monotonic())
report = {
    "warnings": warnings, "signals": signals, "notes": notes, "during": during, "after": services(),
    "start": times[1] - times[0], "log": times[2] - times[1], "finish": times[3] - times[2],
}
Path(plan["report"]).write_text(json.dumps(report))
"""


@dataclass
class Life:
    """What a process saw, and the run folders that wandb has made in the home so far."""

    folders: list[Path]
    warnings: list[str] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    notes: list = field(default_factory=list)
    during: list[int] = field(default_factory=list)
    start: float = 0.0
    log: float = 0.0
    finish: float = 0.0

    @cached_property
    def record(self):
        return read(self.folders[-1])


@pytest.fixture
def live(home, tmp_path):
    """Let a tracker live in a process of its own."""
    (tmp_path / "work").mkdir()
    (tmp_path / "picture.png").write_bytes(picture())
    before = {path.name for path in tmp_path.iterdir()}

    def run(mode="offline", *, evaluations=EVALUATIONS, terminal=False, code=0, **plan):
        plan = {
            "mode": mode,
            "identity": "run-1",
            "config": CONFIG,
            "evaluations": [asdict(evaluation) for evaluation in evaluations],
            "figure": None,
            "exit_code": 0,
            "patience": PATIENCE,
            "before": "pass",
            "between": "pass",
            "report": str(home.parent / "report.json"),
            **plan,
        }
        # Warnings are errors here too: wandb would end as an inert tracker, and the test with it.
        command = [sys.executable, "-W", "error", "-c", LIFE, json.dumps(plan)]
        ended, output = (at_terminal if terminal else piped)(command, tmp_path / "work")
        assert output == b""
        assert ended == code
        if code:
            return None
        report = json.loads((home.parent / "report.json").read_text())
        assert report.pop("after") == []
        assert {path.name for path in tmp_path.iterdir()} == before
        assert not list((tmp_path / "work").iterdir())
        assert {path.name for path in home.parent.iterdir()} <= {
            "drakegpt",
            "report.json",
            ".netrc",
        }
        assert {path.name for path in home.iterdir()} <= {"wandb"}
        folders = run_folders(home)
        others = {path.name for path in home.glob("wandb/*") if path not in folders}
        assert others <= {"data", "cache", "config", "artifact"}
        return Life(folders, **report)

    return run


def piped(command, folder):
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def at_terminal(command, folder):
    """The same where a question could be asked, and waited for."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    output = b""
    try:
        with suppress(OSError):  # how the end of the other side shows on Linux
            while chunk := os.read(ours, 1024):
                output += chunk
                assert b"wandb" not in output
        return process.wait(60), output
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def run_folders(home):
    """In the order in which they were made: online fails before offline begins."""
    folders = (home / "wandb").glob("*run-*")
    return sorted(folders, key=lambda path: (path.name.split("run-", 1)[1], "offline" in path.name))


def wandb(*arguments):
    program = shutil.which("wandb", path=str(Path(sys.executable).parent))
    assert program, "wandb is not installed beside this Python"
    done = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, "WANDB_ERROR_REPORTING": "false"},
        cwd=os.environ["HOME"],  # it keeps a log of its own where it is called
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def read(folder):
    """A record on disk, by wandb's own reader: its parts by type, in order."""
    parts = {}
    for line in wandb("leet", "inspect", "--json", folder).splitlines():
        part = json.loads(line)
        parts.setdefault(part["type"], []).append(part[part["type"]])
    return parts


def history(record):
    """Evaluations as they were given, by step."""
    rows = {row["step"]["num"]: row["item"] for row in record.get("history", [])}
    return {
        step: (row["train/loss"], row["val/loss"], row["learning_rate"], row["tokens_per_second"])
        for step, row in rows.items()
        if "train/loss" in row
    }


def expected(evaluations):
    return {
        e.iteration: (e.train_loss, e.val_loss, e.learning_rate, e.tokens_per_second)
        for e in evaluations
    }


def summary(record):
    values = {}
    for part in record["summary"]:
        values |= part["update"]
    return values


def exit_codes(life):
    """Of a run that took a second or more, the record has its time too."""
    return [part["exit_code"] for part in life.record["exit"]]


def picture():
    """The smallest PNG: one black pixel."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


class WandbServer:
    """As much of W&B's server as one run needs, or one that answers everything with `status`.

    `last_step` is that of the run it already has; `stopped` is the answer to whether somebody
    pressed the stop button; after `good_for` requests it answers no more.
    """

    def __init__(self, status=200, last_step=None, stopped=False, good_for=sys.maxsize):
        self.status, self.last_step, self.stopped = status, last_step, stopped
        self.good_for, self.closing = good_for, threading.Event()
        self.keys, self.requests, self.uploads = set(), [], {}
        self.history, self.summary = [], {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path, body):
        if path == "/graphql":
            request = json.loads(body)
            return {"data": self._graphql(request["operationName"], request["variables"])}
        if path.endswith("/file_stream"):
            files = json.loads(body).get("files", {})
            lines = files.get("wandb-history.jsonl", {}).get("content", [])
            self.history += map(json.loads, lines)
            for line in files.get("wandb-summary.json", {}).get("content", []):
                self.summary = json.loads(line)
            return {"stopped": self.stopped}
        if path.startswith("/upload/"):
            self.uploads[path.removeprefix("/upload/")] = body
        return {}

    def _graphql(self, operation, variables):
        project = {"id": "p", "name": "drakegpt", "entity": {"id": "e", "name": "me"}}
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": self.last_step and self._resumable()}}
        if operation == "UpsertBucket":
            run = {"id": "b", "name": variables["name"], "displayName": variables["displayName"]}
            lines = 3 if self.last_step else 0
            run |= {"historyLineCount": lines, "project": project}
            return {"upsertBucket": {"bucket": run, "inserted": True}}
        if operation == "CreateRunFiles":
            names = variables["files"]
            files = [{"name": n, "uploadUrl": f"{self.address}/upload/{n}"} for n in names]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return None

    def _resumable(self):
        last = json.dumps({"_step": self.last_step, "_runtime": 5})
        return {
            "id": "b",
            "name": "run-1",
            "displayName": "my run",
            "summaryMetrics": json.dumps({"_step": self.last_step}),
            "historyTail": json.dumps([last]),
            "eventsTail": "[]",
            "config": "{}",
            "wandbConfig": json.dumps({"t": 1}),
            "tags": [],
            **dict.fromkeys(("logLineCount", "eventsLineCount"), 0),
            "historyLineCount": 3,
        }

    def _handler(server):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append(self.path)
                if len(server.requests) > server.good_for:
                    server.closing.wait()
                    self.close_connection = True
                    return
                server.keys.add(self.headers.get("Authorization"))
                answer = server.answer(self.path, body) if server.status == 200 else {}
                text = json.dumps(answer).encode()
                self.send_response(server.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                self.do_POST()

            do_PUT = do_CONNECT = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        return Handler


@pytest.fixture
def serve(monkeypatch):
    """Start a server, and make it the one that wandb talks to."""
    servers = []

    def start(*, key=KEY, **how):
        servers.append(WandbServer(**how))
        monkeypatch.setenv("WANDB_BASE_URL", servers[-1].address)
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_an_offline_run_holds_everything(live, tmp_path):
    life = live(figure=str(tmp_path / "picture.png"))
    assert life.warnings == []
    (folder,) = life.folders
    assert folder.name.startswith("offline-run-")
    (run,) = life.record["run"]
    assert (run["run_id"], run["display_name"], run["project"]) == ("run-1", "my run", "drakegpt")
    assert {key: run["config"]["update"][key] for key in CONFIG} == CONFIG
    assert history(life.record) == expected(EVALUATIONS)
    assert summary(life.record)["train/loss"] == {"min": 2.0}
    assert summary(life.record)["val/loss"] == {"min": 2.5}
    assert exit_codes(life) == [0]

    (drawn,) = [row["item"] for row in life.record["history"] if "figure.path" in row["item"]]
    assert (drawn["figure.format"], drawn["figure.width"]) == ("png", 1)
    image = folder / "files" / drawn["figure.path"]
    assert image.read_bytes() == (tmp_path / "picture.png").read_bytes()
    # Nothing about this machine or its programs.
    assert set(folder.glob("files/*")) == {folder / "files" / "media"}


def test_a_loss_of_the_training_splits_tail_is_not_called_validation(live):
    evaluations = [replace(each, scored_on="training-tail") for each in EVALUATIONS]
    record = live(evaluations=evaluations, config=CONFIG | {"select_on": "training-tail"}).record
    names = {metric.get("name") or metric["glob_name"] for metric in record["metric"]}
    assert names == {"*", "train/loss", "tail/loss"}


def test_the_curves_are_drawn_over_the_iteration(live):
    record = live().record
    metrics = {metric.get("name") or metric["glob_name"]: metric for metric in record["metric"]}
    over = {name: metric["step_metric"] for name, metric in metrics.items()}
    assert over == dict.fromkeys(("*", "train/loss", "val/loss"), "iteration")
    assert metrics["val/loss"]["summary"] == {"min": True}  # while it runs, too
    assert [row["item"]["iteration"] for row in record["history"]] == [10, 20, 30]


def test_a_failed_run_is_marked(live):
    assert exit_codes(live(exit_code=1)) == [1]


def test_offline_asks_nobody(live, serve, monkeypatch):
    server = serve()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, server.address)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    live()
    assert server.requests == []


@pytest.mark.slow
def test_a_resumed_run_keeps_its_identity_and_its_minima(live):
    live(evaluations=EVALUATIONS[:2])
    life = live()  # with the earlier evaluations again
    first, second = map(read, life.folders)
    assert [record["run"][0]["run_id"] for record in (first, second)] == ["run-1", "run-1"]
    assert second["run"][0]["resume"] is True
    assert history(second) == expected(EVALUATIONS)
    assert summary(second)["val/loss"] == {"min": 2.5}


def test_the_server_gets_everything(live, serve, tmp_path):
    server = serve()
    life = live("online", figure=str(tmp_path / "picture.png"))
    assert life.warnings == []
    (folder,) = life.folders
    assert folder.name.startswith("run-")
    assert [row["_step"] for row in server.history] == [10, 20, 30, 31]
    assert [row.get("val/loss") for row in server.history] == [3.1, 2.5, 2.7, None]
    assert server.summary["val/loss"] == {"min": 2.5}
    uploaded = {name.split("/")[-1].split("_")[0] for name in server.uploads}
    assert uploaded == {"figure", "config.yaml", "wandb-summary.json"}


def test_the_server_has_a_part_already(live, serve):
    server = serve(last_step=20)
    life = live("online")  # all three, as after a resume
    assert life.warnings == []
    assert [row["_step"] for row in server.history] == [30]
    assert server.summary["val/loss"] == {"min": 2.5}  # of step 20, not of what was sent


@pytest.mark.slow
def test_a_record_on_disk_is_uploaded_by_the_command_of_the_warning(live, serve, monkeypatch):
    serve(status=401)
    (warning,) = live("online").warnings
    server = serve(last_step=20)
    program, *arguments = shlex.split(warning.partition("later with: ")[2])
    assert program == "wandb"
    wandb(*arguments)
    # Nothing is lost, and nothing is out of place where it counts.
    assert [row["iteration"] for row in server.history] == [10, 20, 30]
    assert [row["val/loss"] for row in server.history] == [3.1, 2.5, 2.7]


@pytest.mark.slow
def test_no_network(live, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    life = live("online")
    assert life.start < PATIENCE + SLACK
    assert_recorded_offline(life, "connection refused")


def test_a_server_that_refuses_the_key(live, serve):
    server = serve(status=401)
    life = live("online")
    assert life.start < SLACK
    assert_recorded_offline(life, "401")
    assert server.keys == {f"Basic {b64encode(f'api:{KEY}'.encode()).decode()}"}


@pytest.mark.slow
def test_a_server_that_never_answers(live, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with silent_server() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        life = live("online", patience=2.0)
    assert 2.0 < life.start < 2.0 + SLACK
    assert_recorded_offline(life, "deadline exceeded")


@pytest.mark.parametrize("key", [None, "too-short"])
def test_no_key_or_none_that_could_be_one(live, serve, key):
    server = serve(key=key)
    life = live("online", terminal=True)
    assert life.start < SLACK
    assert_recorded_offline(life, "40+ characters" if key else "no API key: run `wandb login`")
    assert server.requests == []


@pytest.mark.parametrize("mine", [True, False])
def test_a_key_in_netrc_is_for_its_host_only(live, serve, home, mine):
    server = serve(key=None)
    host = server.address.removeprefix("http://") if mine else "api.wandb.ai"
    netrc = home.parent / ".netrc"
    netrc.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    life = live("online")
    if mine:
        assert life.warnings == []
        assert len(server.history) == 3
    else:
        assert_recorded_offline(life, "no API key")
        assert server.requests == []


@pytest.mark.slow
def test_a_server_that_goes_away(live, serve):
    server = serve(good_for=2)  # to begin a run takes two requests
    life = live("online", patience=2.0)
    assert life.start < SLACK
    assert life.log < 1
    assert 2.0 < life.finish < 2.0 + SLACK
    assert len(server.requests) > 2
    (warning,) = life.warnings
    assert "did not take the end" in warning
    assert f"wandb sync --include-online {life.folders[0]}" in warning
    assert history(life.record) == expected(EVALUATIONS)


@pytest.mark.slow
def test_the_server_cannot_stop_training(live, serve):
    """wandb asks every fifteen seconds whether somebody pressed the stop button."""
    server = serve(stopped=True)
    life = live("online", between="time.sleep(20)")
    assert life.signals == []
    assert life.warnings == []
    assert [row["_step"] for row in server.history] == [10, 20, 30]


def test_interrupts_do_not_reach_wandb(live):
    between = "os.killpg(0, signal.SIGINT); os.killpg(0, signal.SIGTERM); time.sleep(0.5)"
    life = live(between=between)
    assert life.signals == [signal.SIGINT, signal.SIGTERM]
    assert life.warnings == []
    assert len(life.during) == 1
    assert history(life.record) == expected(EVALUATIONS)
    assert exit_codes(life) == [0]


def test_a_service_that_dies_half_way_costs_one_warning(live):
    """Training goes on to its end."""
    life = live(between="os.kill(during[0], signal.SIGKILL); time.sleep(0.5)")
    (warning,) = life.warnings
    assert "stopped recording" in warning
    assert str(life.folders[0]) in warning


def test_a_service_that_exits_half_way_does_not_take_the_process_along(live):
    """wandb raises SystemExit where its service ended badly: a fault like any other."""
    between = """
class Broken:
    def log(self, *given, **named):
        notes.append("called")
        sys.exit(3)
tracker._run = Broken()
"""
    life = live(between=between)
    assert life.notes == ["called"]
    (warning,) = life.warnings
    assert "stopped recording this run (3)" in warning
    assert history(life.record) == expected(EVALUATIONS[:1])


def test_a_broken_figure_does_not_lose_the_run(live, tmp_path):
    life = live(figure=str(tmp_path / "missing.png"))
    (warning,) = life.warnings
    assert "missing.png" in warning
    assert history(life.record) == expected(EVALUATIONS)


def test_a_run_that_was_never_finished_does_not_take_the_next(live):
    before = 'wandb_mirror.WandbTracker("another", "run-0", "offline", {})'
    life = live(before=before)
    assert [read(folder)["run"][0]["run_id"] for folder in life.folders] == ["run-0", "run-1"]
    assert history(life.record) == expected(EVALUATIONS)


def test_where_nothing_can_be_written(live, home):
    home.mkdir()
    (home / "wandb").write_text("in the way")
    (warning,) = live().warnings
    assert "cannot record this run" in warning
    assert "not affected" in warning


def test_the_service_ends_with_a_killed_process(live, tmp_path):
    note = tmp_path / "work" / "service"
    between = "Path('service').write_text(str(during[0])); os.kill(os.getpid(), signal.SIGKILL)"
    live(between=between, code=-signal.SIGKILL)
    until = time.monotonic() + 10
    while running(int(note.read_text())) and time.monotonic() < until:
        time.sleep(0.1)
    assert not running(int(note.read_text()))


def assert_recorded_offline(life, reason):
    (warning,) = life.warnings
    assert reason in warning
    assert "offline" in warning
    assert f"wandb sync {life.folders[-1]}" in warning
    assert life.folders[-1].name.startswith("offline-run-")
    assert history(life.record) == expected(EVALUATIONS)
    assert len(life.during) == 1
    assert life.finish < SLACK


@contextmanager
def silent_server():
    """Takes connections and says nothing: they wait in the queue of a socket nobody accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def running(pid):
    listing = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True)
    return listing.stdout.strip()[:1] not in (b"", b"Z")


def test_a_key_is_seen_without_wandb(home, monkeypatch):
    netrc = home.parent / ".netrc"
    assert not has_api_key()
    for host in ("api.wandb.ai", "api.forge.coreweave.com"):
        netrc.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
        netrc.chmod(0o600)
        assert has_api_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.example")
    assert not has_api_key()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_api_key()
    assert not home.exists()
