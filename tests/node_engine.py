"""Runs functions of the page's engine in node, as a page does: the files joined, no modules."""

import json
import shutil
import subprocess

import pytest

from drakegpt.report.engine_files import read_engine

NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="needs node")

# The files run as a script, whose top level is that of the page: functions see each other.
MAIN = """
const { readFileSync } = require("node:fs");
const { engine, script, given } = JSON.parse(readFileSync(0, "utf8"));
require("node:vm").runInThisContext(engine);
const answer = require("node:vm").runInThisContext(`(async (given) => {${script}})`)(given);
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
answer.then((result) => process.stdout.write(JSON.stringify(result, plain)));
"""


def run_engine(script, given=None):
    """What a script returns that sees the engine's functions and `given`."""
    message = json.dumps({"engine": read_engine(), "script": script, "given": given})
    done = subprocess.run(
        [NODE, "-e", MAIN], input=message.encode(), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)
