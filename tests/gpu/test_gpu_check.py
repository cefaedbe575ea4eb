"""The check for a GPU runs from start to end, on a CPU at toy sizes, and tells what failed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from check.results import Results, failures, rounded

PROGRAM = Path(__file__).parent / "gpu_check.py"
WITHIN = ["--seconds", "3600", "--patience", "50"]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="groups of processes of POSIX")


@pytest.fixture
def check(tmp_path):
    """Start it without a GPU: the exit code, and the JSON printed last."""

    def start(*arguments):
        command = [sys.executable, str(PROGRAM), "--dry-run", "--out", str(tmp_path / "out")]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "findings"),
    [
        ("env", {"auto", "plan", "torch"}),
        ("numbers", {"dropout", "losses_default", "losses_middle", "scaled_three_steps"}),
        ("fallback", {"capture_refused", "memory_given_back", "too_little_memory"}),
        ("speed", {"recorded", "eager", "muon", "compiled", "kernels_recorded", "default_size"}),
        ("train", {"train_2000"}),
        ("write", {"float32_32", "evaluation", "few_bits_training", "packed_is_exact"}),
        ("reference", {"usual_eager", "usual_compiled", "fast_graph", "fast_compiled_graph"}),
    ],
)
def test_a_section_runs_and_nothing_fails(check, tmp_path, section, findings):
    code, result = check("--sections", section, *WITHIN)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert result["failed"] == [], log
    assert code == 0
    assert findings <= result[section].keys(), log
    assert json.loads((tmp_path / "out" / "gpu_check.json").read_text()) == result


@pytest.mark.parametrize(
    ("limit", "found", "failed"),
    [
        (["--patience", "0.001"], "ended", ["env.ended"]),  # of 40 seconds
        (["--seconds", "10"], "no time left", []),
    ],
)
def test_a_section_that_has_no_time_is_told(check, limit, found, failed):
    code, result = check("--sections", "env", *limit)
    assert found in result["env"]
    assert result["failed"] == failed
    assert code == len(failed)


def test_a_part_that_fails_costs_the_others_nothing(tmp_path):
    results = Results(tmp_path / "section.json")
    with results.part("first"):
        raise ValueError("no\nbecause")
    with results.part("second"):
        results.put("second", {"ok": True})
    written = json.loads((tmp_path / "section.json").read_text())
    assert written == {"first": {"ok": False, "error": "ValueError: no"}, "second": {"ok": True}}
    assert failures({"a": written, "b": "no time left"}) == ["a.first"]


def test_numbers_are_short_and_those_that_json_lacks_are_text():
    assert rounded({"a": [1.23456, float("nan")], "b": 12345}) == {"a": [1.235, "nan"], "b": 12345}
