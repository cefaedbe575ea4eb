import json

import pytest
from learning import train

from drakegpt.errors import RunError
from drakegpt.runs.run import open_run


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset_version", "../../x"), ("dataset_version", "A" * 64), ("created_at", 7),
        ("final_norm", "yes"), ("packed", {"bits": "9", "trained": True, "from": "r"}),
        ("packed", {"bits": "8", "trained": 1, "from": "r"}), ("packed", []), ("sweep", ["s"]),
        ("packed", {"bits": ["8"], "trained": True, "from": "r"}), ("imported_from", 3),
    ],
)  # fmt: skip
def test_invalid_values_in_run_json_are_damage(prepared, name, value):
    run = train(prepared, "BigramLM", "r")
    info = json.loads((run.folder / "run.json").read_text()) | {name: value}
    (run.folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="not a whole run"):
        open_run(run.folder)
