"""A configuration of the benchmark that takes milliseconds."""

import dataclasses

import torch

from drakegpt.bench.workloads import bench_config

CPU = torch.device("cpu")


def tiny(model="TransformerLM", size="default", **settings):
    shape = {"context_length": 4, "embedding_dim": 8, "num_heads": 2, "num_layers": 1}
    rest = {"batch_size": 2, "eval_iters": 2} | settings
    return dataclasses.replace(bench_config(model, size), **shape | rest)
