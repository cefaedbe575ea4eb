"""The page's engine in node: its files joined as the page joins them, and a script that uses them."""

import json
import shutil
import subprocess

import pytest

from drakegpt.report.engine_files import read_engine

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="needs node in the PATH")

# The script reads `given`, and what it assigns to `result` is returned; typed arrays as lists.
WRAPPER = """
{engine}
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
let result;
{script}
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
process.stdout.write(JSON.stringify(result, plain) ?? "null");
"""


def run_engine(script, given=None, timeout=120):
    """Run a script after the engine; `given` is what it reads. Returns its `result`."""
    program = WRAPPER.replace("{engine}", read_engine()).replace("{script}", script)
    done = subprocess.run(
        [NODE, "--eval", program],
        input=json.dumps(given), capture_output=True, encoding="utf-8", timeout=timeout,
    )  # fmt: skip
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout)
