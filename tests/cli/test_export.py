"""1.58-bit runs: trained, packed, scored, writing."""


def test_train_export_eval_generate(drakegpt, prepared):
    train = ["train", "TransformerLM", "--bits", "1.58", "--iters", "30", "--eval-iters", "2"]
    assert drakegpt(*train, "--name", "few", "--quiet").code == 0
    packing = drakegpt("export", "packed", "few", "--name", "packed")
    assert packing.code == 0, packing.err
    assert "Packed few to 1.58 bits per weight, exactly as trained, as packed" in packing.out
    assert "drakegpt eval packed" in packing.err
    losses = [drakegpt("eval", run, "--json").json["val"]["loss"] for run in ("few", "packed")]
    assert abs(losses[0] - losses[1]) < 1e-5
    texts = [
        drakegpt("generate", run, "--length", "60", "--seed", "1").out for run in ("few", "packed")
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) >= 60


def test_json_counts_bytes(drakegpt, prepared):
    train = ["train", "TransformerLM", "--iters", "4", "--eval-iters", "1", "--name", "full"]
    assert drakegpt(*train, "--quiet").code == 0
    result = drakegpt("export", "packed", "full", "--bits", "8", "--json").json
    assert result["bits"] == "8"
    assert not result["trained_with_these_bits"]
    # 3 blocks of 3 x 32 x 32 + 32 x 32 + 2 x 4 x 32 x 32 weights, and a scale for each row
    weights, rows = 3 * 12 * 32 * 32, 3 * (3 * 32 + 32 + 4 * 32 + 32)
    assert result["packed_bytes"] == weights + 4 * rows
    assert result["resident_bytes"]["after"] < result["resident_bytes"]["before"] / 2
    assert result["file_bytes"]["after"] < result["file_bytes"]["before"] / 2


def test_what_cannot_be_packed_is_one_message(drakegpt, prepared):
    assert drakegpt("train", "BigramLM", "--iters", "2", "--quiet", "--name", "b").code == 0
    refused = drakegpt("export", "packed", "b")
    assert refused.code == 2
    assert "no linear layers" in refused.err
    assert refused.out == ""
    refused = drakegpt("train", "BigramLM", "--bits", "1")
    assert refused.code == 2
    assert "TransformerLM --bits 1.58" in refused.err
