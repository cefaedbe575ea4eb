"""Run functions of the page's engine in node, as a page does: the files joined, no modules."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import drakegpt

ENGINE = Path(drakegpt.__file__).parent / "report" / "engine"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="needs node")

# The files run as a script, whose top level is that of the page: functions see each other.
MAIN = """
const { readFileSync } = require("node:fs");
const { engine, script, given } = JSON.parse(readFileSync(0, "utf8"));
require("node:vm").runInThisContext(engine);
const answer = require("node:vm").runInThisContext(`(given) => {${script}}`)(given);
process.stdout.write(JSON.stringify(answer));
"""


def run_in_node(files, script, given):
    """What a script returns that sees the engine's files and `given`."""
    engine = "\n".join((ENGINE / file).read_text(encoding="utf-8") for file in files)
    message = json.dumps({"engine": engine, "script": script, "given": given})
    done = subprocess.run(
        [NODE, "-e", MAIN], input=message.encode(), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
