import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drakegpt.data import arrays


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=6),
    st.sampled_from([np.uint8, np.int16, np.int32]),
)
def test_blocks_become_the_file_that_numpy_writes(tmp_path, blocks, kind):
    whole = np.array([token for block in blocks for token in block], kind)
    written = arrays.write(tmp_path / "a.npy", kind, (np.array(b, kind) for b in blocks))
    np.save(tmp_path / "b.npy", whole)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    digest = hashlib.sha256(whole.tobytes()).hexdigest()
    assert (written.tokens, written.sha256) == (len(whole), digest)


def test_a_checksum_is_taken_block_by_block(monkeypatch):
    array = np.arange(1000, dtype=np.int16)
    for size in (1, 7, 1000, 2000):
        monkeypatch.setattr(arrays, "BLOCK", size)
        assert arrays.checksum(array) == hashlib.sha256(array.tobytes()).hexdigest()


def test_an_array_that_fails_half_way_leaves_nothing(tmp_path):
    def blocks():
        yield np.zeros(5, np.uint8)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        arrays.write(tmp_path / "new" / "a.npy", np.uint8, blocks())
    assert not list((tmp_path / "new").iterdir())
