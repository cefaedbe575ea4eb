import json

import pytest
import torch

from drakegpt.errors import RunError
from drakegpt.runs.checkpoint import list_checkpoints, load_weights, save_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
STATE = {"iteration": 5, "random": {"cpu": torch.arange(3, dtype=torch.uint8), "cuda": None}}


def save(folder, iteration=5):
    return save_checkpoint(folder, iteration, WEIGHTS, STATE, {"model": "{}"})


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint = save(tmp_path / "c")
    assert checkpoint.iteration == 5
    tensors, metadata = load_weights(checkpoint.weights)
    assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)
    assert metadata["model"] == "{}"
    state = checkpoint.state()
    assert state["iteration"] == 5
    assert torch.equal(state["random"]["cpu"], STATE["random"]["cpu"])


def test_the_last_two_are_kept(tmp_path):
    for iteration in (5, 10, 15, 20):
        save(tmp_path, iteration)
    assert [c.iteration for c in list_checkpoints(tmp_path)] == [15, 20]
    assert not list(tmp_path.glob(".*unfinished"))


def test_more_than_eight_digits_are_kept_in_order(tmp_path):
    saved = (99_999_998, 99_999_999, 100_000_000, 1_000_000_000)
    for iteration in saved:
        save(tmp_path, iteration)
    assert [c.iteration for c in list_checkpoints(tmp_path)] == list(saved[-2:])
    (tmp_path / "0123456789").mkdir()  # no name that a checkpoint has
    assert len(list_checkpoints(tmp_path)) == 2


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_found(tmp_path, name, damage):
    checkpoint = save(tmp_path)
    file = checkpoint.folder / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-7])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        checkpoint.verify()


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    save(tmp_path, 5)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 10)
    (only,) = list_checkpoints(tmp_path)
    assert only.iteration == 5
    only.verify()
    assert not list(tmp_path.glob(".*unfinished"))


def test_state_with_code_inside_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    checkpoint = save(tmp_path)
    torch.save({"iteration": Evil()}, checkpoint.folder / "state.pt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        checkpoint.state()


def test_another_format_is_named(tmp_path):
    checkpoint = save(tmp_path)
    from safetensors.torch import save_file

    save_file(WEIGHTS, checkpoint.weights, {"drakegpt": '{"format_version": "99"}'})
    with pytest.raises(RunError, match="format 99"):
        load_weights(checkpoint.weights)


def test_the_manifest_names_both_files(tmp_path):
    manifest = json.loads((save(tmp_path).folder / "manifest.json").read_text())
    assert set(manifest) == {"weights.safetensors", "state.pt"}
