"""The layer attentions once more, from the equations of their docstrings, with all they make.

Written for tests, block by block, in plain operations; nothing of ``mmdla`` but the convolutional
blocks runs.
"""

import math

import torch
import torch.nn.functional as F


def expected_records(model, images):
    """Backbone without gradients: for every stage a dict of what should be recorded."""
    x = images
    for layer in model.stem_layers:
        x = layer(x)
    records = []
    for stage in model.stages:
        run = {'Light': light, 'Base': base, 'LSTM': dia}
        kind = type(stage.attention).__name__
        attend = next(function for end, function in run.items() if kind.endswith(end))
        x, record = attend(stage, x, stage.attention, dict(stage.attention.named_parameters()))
        records.append(record)
    return records


def channel_conv(weight, y):
    return F.conv1d(y[:, None], weight, padding=weight.shape[-1] // 2)[:, 0]


def depthwise(weight, x):
    return F.conv2d(x, weight, padding=1, groups=len(weight))


def batch_norm(norm, x):
    shape = (1, -1, 1, 1)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return x * scale.view(shape) + (norm.bias - norm.running_mean * scale).view(shape)


def unit(p, y, h, c):
    """(h', c') and the gates of the DSU, in either form, or with 4C rows of the DIA-LSTM."""

    def squeeze(name, v):
        inner = (v @ p[f'dsu.{name}.0.weight'].T + p[f'dsu.{name}.0.bias']).clamp(min=0)
        return inner @ p[f'dsu.{name}.2.weight'].T + p[f'dsu.{name}.2.bias']

    if 'dsu.from_cy.0.weight' in p:  # the shared form
        made = squeeze('from_cy', torch.cat((c.sigmoid(), y), -1))
    else:
        made = squeeze('from_y', y) + squeeze('from_h', h)
    parts = made.split(y.shape[-1], -1)
    i, f, g = parts[0].sigmoid(), parts[1].sigmoid(), parts[2].tanh()
    made = dict(input_gate=i, forget_gate=f, candidate=g)
    context = f * c + i * g
    hidden = context.sigmoid()
    if len(parts) == 4:
        made['output_gate'] = parts[3].sigmoid()
        hidden = hidden * made['output_gate']
    return hidden, context, dict(made, hidden=hidden, context=context)


def dots(q, k, width):
    """q·k / sqrt(width) of every head."""
    return torch.stack(
        [
            (q[..., i : i + width] * k[..., i : i + width]).sum(-1) / math.sqrt(width)
            for i in range(0, q.shape[-1], width)
        ],
        -1,
    )


def stacked(rows):
    """A list of dicts, one a block, to a dict of (B, L, ...)."""
    return {name: torch.stack([row[name] for row in rows], 1) for name in rows[0]}


def light(stage, x, attention, p):
    rows, lambdas = [], []
    h = c = torch.zeros(())
    for n, block in enumerate(stage):
        r, s = block.residual(x), block.shortcut(x)
        x = (r + s).clamp(min=0)
        y, heads = x.mean((2, 3)), attention.blocks[n]
        width = heads.head_channels
        q = channel_conv(p[f'blocks.{n}.query.weight'], y)
        k = channel_conv(p[f'blocks.{n}.key.weight'], y)
        a = dots(q, k, width).sigmoid()
        lambda_ = p[f'blocks.{n}.lambda_'].view(1, -1, 1, 1)
        row, earlier = dict(gates=a), s
        if 'extract.weight' in p:
            if n == 0:
                h = c = torch.zeros_like(y)
            h, c, made = unit(p, y, h, c)
            d = unit(p, s.mean((2, 3)), h, c)[0]
            row.update(made, refresh=d)
            earlier = d[..., None, None] * s + depthwise(p['extract.weight'], s)
        value = depthwise(p[f'blocks.{n}.value.weight'], x)
        o = a.repeat_interleave(width, 1)[..., None, None] * value + lambda_ * earlier
        x = x + batch_norm(heads.norm, o)
        rows.append(row)
        lambdas.append(lambda_.flatten())
    return x, dict(stacked(rows), lambdas=torch.stack(lambdas))


def base(stage, x, attention, p):
    blocks = len(stage)
    keys, values, products, rows, units = [], [], [], [], []
    h = c = None
    for n, block in enumerate(stage):
        r, s = block.residual(x), block.shortcut(x)
        x = (r + s).clamp(min=0)
        y, heads = x.mean((2, 3)), attention.blocks[n]
        if any(name.startswith('dsu.') for name in p):
            if h is None:
                h = c = torch.zeros_like(y)
            h, c, made = unit(p, y, h, c)
            units.append(made)
            for m in range(n):
                keys[m] = keys[m] * unit(p, keys[m], h, c)[0]
                fresh = unit(p, values[m].mean((2, 3)), h, c)[0]
                values[m] = values[m] * fresh[..., None, None]
                products[m] = products[m] * fresh
        q = channel_conv(p[f'blocks.{n}.query.weight'], y)
        keys.append(channel_conv(p[f'blocks.{n}.key.weight'], y))
        values.append(depthwise(p[f'blocks.{n}.value.weight'], x))
        products.append(torch.ones_like(y))
        scores = torch.stack([dots(q, k, heads.head_channels) for k in keys], -1).exp()
        weight = scores / scores.sum(-1, keepdim=True)  # (B, heads, n + 1)
        channels = weight.repeat_interleave(heads.head_channels, 1)
        o = sum(channels[..., m][..., None, None] * values[m] for m in range(n + 1))
        x = x + batch_norm(heads.norm, o).clamp(min=0)
        row = dict(weights=torch.zeros(*weight.shape[:2], blocks).to(weight))
        row['weights'][..., : n + 1] = weight
        row['kept'] = torch.zeros(len(y), blocks, y.shape[1]).to(y)
        row['kept'][:, : n + 1] = torch.stack(products, 1)
        rows.append(row)
    found = dict(weights=torch.stack([row['weights'] for row in rows], 2))
    if units:
        found['kept'] = torch.stack([row['kept'] for row in rows], 1)
        found.update(stacked(units))
    return x, found


def dia(stage, x, attention, p):
    rows = []
    for n, block in enumerate(stage):
        r, s = block.residual(x), block.shortcut(x)
        y = r.mean((2, 3))
        if n == 0:
            h = c = torch.zeros_like(y)
        h, c, made = unit(p, y, h, c)
        x = (r * h[..., None, None] + s).clamp(min=0)
        rows.append(made)
    return x, stacked(rows)
