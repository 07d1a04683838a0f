"""What the backbone promises beyond the host's ResNet."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmdla import DLAResNet
from mmdla.analysis.memory import saved_bytes

SMALL = dict(depth=18, base_channels=32)
VARIANTS = [
    dict(depth=18),
    dict(depth=34),
    dict(depth=50, norm_cfg=dict(type='GN', num_groups=32)),
    dict(depth=50, groups=32, base_width=4),
    dict(depth=50, deep_stem=True, avg_down=True),
    dict(depth=50, style='caffe', dcn=dict(type='DCNv2', deform_groups=1),
         stage_with_dcn=(False, True, True, True)),
    dict(depth=101, base_channels=16),
    dict(depth=152, base_channels=16),
    dict(depth=18, layer_attention=dict(type='DLALight', form='shared', reduction=4)),
    dict(depth=18, layer_attention=None),
    dict(depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1)),
]  # fmt: skip


@pytest.mark.parametrize('args', VARIANTS, ids=str)
def test_every_parameter_gets_a_gradient(args):
    torch.manual_seed(0)
    model = DLAResNet(**args, zero_init_residual=False).double().train()
    for module in model.modules():  # keep activations small, so that no sigmoid saturates
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.constant_(module.weight, 0.1)
    outs = model(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (16, 200)])
def test_any_size(size):
    """Down to final maps of 1x1, and one image in eval mode."""
    model = DLAResNet(**SMALL).eval()
    shapes = [out.shape for out in model(torch.rand(1, 3, *size))]
    plain = DLAResNet(**SMALL, layer_attention=None).eval()
    assert shapes == [out.shape for out in plain(torch.rand(1, 3, *size))]


def test_no_state_between_calls_and_none_between_samples():
    model = DLAResNet(**SMALL).eval()
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        once, again = model(x)[-1], model(x)[-1]
        alone = torch.cat([model(x[i : i + 1])[-1] for i in range(3)])
    assert torch.equal(once, again)
    torch.testing.assert_close(once, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.3])
def test_checkpointing_changes_nothing(drop_path_rate):
    torch.manual_seed(0)
    attention = dict(type='DLALight', drop_path_rate=drop_path_rate)
    args = dict(**SMALL, drop_path_rate=drop_path_rate, layer_attention=attention)
    plain = DLAResNet(**args).train()
    saving = DLAResNet(**args, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 64, 64)
    for model in (plain, saving):
        torch.manual_seed(1)
        model(x)[-1].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), f'{name}: statistics updated twice'


def test_checkpointing_saves_memory():
    def saved(with_cp):
        model = DLAResNet(**SMALL, with_cp=with_cp).train()
        return saved_bytes(model, lambda: model(torch.randn(4, 3, 64, 64)))

    assert saved(True) < 0.5 * saved(False)


def test_bf16_autocast_follows_float32():
    torch.manual_seed(0)
    model = DLAResNet(**SMALL).train()
    x = torch.randn(8, 3, 64, 64)
    expected = model(x)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = model(x)[0]
        got.float().square().mean().backward()
    assert (got.float() - expected).norm() < 0.05 * expected.norm()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_half_and_double_models():
    for dtype in (torch.bfloat16, torch.float64):
        out = DLAResNet(**SMALL).to(dtype).eval()(torch.randn(1, 3, 64, 64, dtype=dtype))
        assert {o.dtype for o in out} == {dtype}


def test_channels_last():
    torch.manual_seed(0)
    model = DLAResNet(**SMALL).eval()
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for a, b in zip(expected, last(x.to(memory_format=torch.channels_last)), strict=True):
        assert b.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_frozen_stages_leave_untrained_attention_trainable():
    model = DLAResNet(**SMALL, frozen_stages=1, norm_eval=False).train()
    stage = model.layer1
    assert not any(p.requires_grad for p in stage[0].parameters())
    assert all(p.requires_grad for p in stage.attention.parameters())
    assert stage.attention.blocks[0].norm.training and not stage[0].norm(1).training
    whole = DLAResNet(**SMALL, frozen_stages=1, freeze_attention=True).train()
    assert not any(p.requires_grad for p in whole.layer1.parameters())


def test_sync_bn_everywhere():
    model = DLAResNet(**SMALL, norm_cfg=dict(type='SyncBN', requires_grad=True))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)


def test_defaults_follow_the_library_that_builds():
    def built(scope):
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(dict(type='mmdla.DLAResNet', depth=18))

    det, pretrain = built('mmdet'), built('mmpretrain')
    assert (det.norm_eval, det.out_indices) == (True, (0, 1, 2, 3))
    assert (pretrain.norm_eval, pretrain.out_indices) == (False, (3,))


def test_configs_stay_as_they_are():
    args = dict(
        type='DLAResNet',
        depth=50,
        norm_cfg=dict(type='BN', requires_grad=True),
        layer_attention=dict(type='DLALight', reduction=8),
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
        plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25, postfix='_x'),
                      position='after_conv2')],
        init_cfg=[dict(type='Kaiming', layer='Conv2d')],
    )  # fmt: skip
    before = copy.deepcopy(args)
    MODELS.build(args)
    assert args == before


def test_every_parameter_takes_part_in_distributed_training():
    """DDP finds no unused parameters, with checkpointing and frozen stages as well; its gradients
    are those of the model alone."""
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0,
                                         world_size=1)  # fmt: skip
    try:
        for options in (dict(), dict(with_cp=True), dict(frozen_stages=1, norm_eval=True)):
            model = DLAResNet(**SMALL, **options).train()
            alone = copy.deepcopy(model)
            wrapped = torch.nn.parallel.DistributedDataParallel(model)
            for _ in range(2):  # the second forward raises on unused parameters
                x = torch.randn(2, 3, 64, 64)
                for net in (wrapped, alone):
                    net.zero_grad()
                    sum(o.square().mean() for o in net(x)).backward()
            grads = {name: p.grad for name, p in alone.named_parameters()}
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    torch.testing.assert_close(parameter.grad, grads[name])
                else:
                    assert parameter.grad is None and grads[name] is None
    finally:
        torch.distributed.destroy_process_group()


BAD = [
    (ValueError, r'depth must be one of \(18.*got 20', dict(depth=20)),
    (ValueError, 'depth', dict(depth='50')),
    (ValueError, 'layer_attention.*Nothing.*DLALight', dict(layer_attention=dict(type='Nothing'))),
    (TypeError, 'layer_attention.*DLALight', dict(layer_attention='DLALight')),
    (ValueError, "layer_attention.*'type'", dict(layer_attention=dict(reduction=4))),
    (TypeError, 'reducton', dict(layer_attention=dict(type='DLALight', reducton=4))),
        (TypeError, 'DSU is no LayerAttention', dict(layer_attention=dict(type='DSU'))),
    (ValueError, 'head_channels.*72', dict(base_channels=72)),
    (ValueError, 'reduction.*-3', dict(layer_attention=dict(type='DLALight', reduction=-3))),
    (ValueError, r'out_indices.*0..1.*num_stages=2.*\(0, 2\)',
     dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 2))),
    (ValueError, 'out_indices.*increase', dict(out_indices=(1, 0))),
    (TypeError, 'out_indices', dict(out_indices=3)),
    (ValueError, 'num_stages', dict(num_stages=5)),
    (ValueError, 'strides must have 4 entries, got 3', dict(strides=(1, 2, 2))),
    (ValueError, r'dilations\[1\]', dict(dilations=(1, 0, 1, 1))),
    (ValueError, 'style.*tensorflow', dict(style='tensorflow')),
    (ValueError, 'frozen_stages', dict(frozen_stages=5)),
    (ValueError, 'drop_path_rate', dict(drop_path_rate=1.0)),
    (ValueError, 'dcn.*bottleneck',
     dict(dcn=dict(type='DCNv2'), stage_with_dcn=(False, True, True, True))),
    (ValueError, 'dcn needs a stage', dict(depth=50, dcn=dict(type='DCNv2'))),
    (ValueError, 'stage_with_dcn.*needs dcn', dict(stage_with_dcn=(False, True, True, True))),
    (ValueError, 'plugins.*bottleneck',
     dict(plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.5), position='after_conv1')])),
    (ValueError, 'position.*after_conv4',
     dict(depth=50, plugins=[dict(cfg=dict(type='ContextBlock'), position='after_conv4')])),
    (ValueError, 'groups.*basic', dict(groups=32)),
    (ValueError, 'stem_channels.*even', dict(stem_channels=33, deep_stem=True)),
    (TypeError, 'with_cp', dict(with_cp=1)),
    (TypeError, 'norm_cfg', dict(norm_cfg='BN')),
    (TypeError, 'pretrained', dict(pretrained=3)),
    (ValueError, 'not both', dict(pretrained='a.pth', init_cfg=dict(type='Kaiming'))),
    (ValueError, 'checkpoint', dict(init_cfg=dict(type='Pretrained'))),
    (TypeError, 'dept', dict(dept=18)),
]  # fmt: skip


@pytest.mark.parametrize(('error', 'words', 'args'), BAD, ids=[b[1] for b in BAD])
def test_bad_arguments(error, words, args):
    with pytest.raises(error, match=words):
        DLAResNet(**{'depth': 18, **args})
