"""What a section has found so far, kept on the disk after each finding."""

import json
import math
import time
import traceback
from contextlib import contextmanager
from pathlib import Path


class Results:
    """Findings by name; one with `ok` false has failed."""

    def __init__(self, file):
        self.file, self.values = Path(file), {}

    def put(self, name, value):
        """Keep a finding, and print it."""
        self.values[name] = value
        self.file.write_text(json.dumps(self.values), encoding="utf-8")
        print(f"{name}: {json.dumps(value)[:600]}", flush=True)

    @contextmanager
    def part(self, name):
        """A part of a section that may fail without the others."""
        started = time.perf_counter()
        try:
            yield
        except BaseException as error:
            traceback.print_exc()
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            self.put(name, {"ok": False, "error": f"{type(error).__name__}: {reason}"})
            if not isinstance(error, Exception):
                raise
        finally:
            print(f"   ({name}: {time.perf_counter() - started:.1f} s)", flush=True)


def rounded(value, digits=4):
    """Floats with few digits, so that the result stays short; what JSON cannot hold as text."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value


def failures(sections):
    """`section.finding` of all that is not as it should be."""
    return [
        f"{section}.{name}"
        for section, findings in sections.items()
        if isinstance(findings, dict)
        for name, value in findings.items()
        if isinstance(value, dict) and value.get("ok") is False
    ]
