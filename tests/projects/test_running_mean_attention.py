"""The example of a layer attention of one's own works through a config, and stays short."""

import importlib.util

import torch
from mmengine.registry import MODELS


def test_example(repo):
    path = repo / 'projects/running_mean_attention.py'
    assert len(path.read_text().splitlines()) <= 60
    spec = importlib.util.spec_from_file_location('running_mean_attention', path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    torch.manual_seed(0)
    cfg = dict(type='mmdla.DLAResNet', depth=18)
    ours = MODELS.build({**cfg, 'layer_attention': dict(type='RunningMeanAttention')}).eval()
    plain = MODELS.build({**cfg, 'layer_attention': None}).eval()
    plain.load_state_dict(ours.state_dict(), strict=False)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x)[-1], plain(x)[-1])  # its gates start at one
    ours.train()(x)[-1].sum().backward()
    gates = [p.grad for stage in ours.stages for p in stage.attention.parameters()]
    assert len(gates) == 8 and all(g.any() for g in gates)
