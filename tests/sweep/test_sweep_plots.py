"""The pictures of a sweep: what stands where, and that there is always one to draw."""

import xml.etree.ElementTree as ET

import pytest

from drakegpt.sweep.plots import draw_sweep, make_scale
from drakegpt.sweep.space import Choices, Range
from drakegpt.sweep.study import TrialRow

SPACE = {
    "embedding_dim": Choices((64, 16, 32)),
    "max_lr": Range(1e-4, 1e-2, log=True),
    "schedule": Choices(("hold", "cosine")),
    "tie_embeddings": Choices((True, False)),
    "num_layers": Range(1, 9),
}
POINT = {"embedding_dim": 16, "max_lr": 1e-3, "schedule": "cosine", "tie_embeddings": True,
         "num_layers": 5}  # fmt: skip


def row(number, loss, state="complete", **params):
    return TrialRow(number=number, params=POINT | params, state=state, loss=loss, iterations=9,
               why="", run=f"r{number}", seconds=1.0)  # fmt: skip


ROWS = {
    "one": [row(1, 2.0)],
    "alike": [row(1, 2.0), row(2, 2.0)],
    "several": [row(1, 2.5), row(2, 2.0, max_lr=1e-2), row(3, 1e9, "pruned", num_layers=9),
                row(4, None, "diverged"), row(5, 2.2, "unfinished")],
}  # fmt: skip


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_each_hyperparameter_has_its_axis_whatever_there_is_to_show(tmp_path, rows):
    written = draw_sweep("A title", "tail loss", "nats", SPACE, rows, tmp_path)
    assert [path.name for path in written] == [
        "parallel.png", "parallel.svg", "scatter.png", "scatter.svg",
    ]  # fmt: skip
    for path in written[::2]:
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
    for path in written[1::2]:
        text = path.read_text(encoding="utf-8")
        assert ET.fromstring(text).tag.endswith("svg")
        for words in ("A title", "tail loss", *SPACE):
            assert f"<!-- {words}" in text
        best = min(rows, key=lambda row: (row.state != "complete", row.loss))
        assert f"<!-- Best: trial {best.number}, {best.loss:.4f}" in text
    before = [path.read_bytes() for path in written]
    draw_sweep("A title", "tail loss", "nats", SPACE, rows, tmp_path)
    assert [path.read_bytes() for path in written] == before


def test_values_stand_where_they_are_looked_for():
    scale = make_scale(SPACE["embedding_dim"])
    assert [scale.place(width) for width in (16, 32, 64)] == [0, 0.5, 1]
    assert scale.ticks == ((0, "16"), (0.5, "32"), (1, "64"))
    assert [make_scale(SPACE["schedule"]).place(s) for s in ("hold", "cosine")] == [0, 1]
    assert make_scale(Choices((7,))).place(7) == 0.5
    log = make_scale(SPACE["max_lr"])
    assert [round(log.place(rate), 9) for rate in (1e-4, 1e-3, 1e-2)] == [0, 0.5, 1]
    assert [text for _, text in log.ticks] == ["0.0001", "0.001", "0.01"]
    even = make_scale(Range(0.0, 0.4))
    assert even.place(0.1) == pytest.approx(0.25)
    assert [text for _, text in make_scale(Range(1, 3)).ticks] == ["1", "2", "3"]
