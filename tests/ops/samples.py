"""Arguments for every operation, as tests call it: shapes, options, and which tensors are maps."""

import torch

import mmdla.ops  # noqa: F401 - registers the operations

SHAPES = [(2, 4, 8, 8), (2, 4, 1, 1), (3, 2, 7, 5), (1, 2, 40, 33), (2, 2, 4, 19), (1, 4, 19, 110)]
SMALL = (2, 4, 3, 4)
NAMES = (
    'add_relu_pool',
    'affine_add_relu_pool',
    'dwconv_pool',
    'dual_dwconv',
    'dual_dwconv_bn',
    'light_coefficients',
    'light_block',
    'base_coefficients',
    'base_block',
    'weighted_sum',
    'carry_gradients',
    'weighted_sum_relu_add',
    'weighted_sum_bn_relu_add',
)
UNTRAINED = ('affine_add_relu_pool', 'light_block', 'base_block', 'weighted_sum')  # no gradients
IN_PLACE = ('light_block_', 'base_block_', 'update_statistics_')


def operation(name: str):
    """The operation as PyTorch knows it."""
    return getattr(torch.ops.mmdla, name).default


class Maker:
    """Random tensors of one dtype and layout; maps are (B, C, H, W)."""

    def __init__(self, shape, dtype=torch.float64, layout=torch.contiguous_format, seed=0):
        self.shape, self.dtype, self.layout = shape, dtype, layout
        self.batch, self.channels = shape[:2]
        single = torch.promote_types(dtype, torch.float32)
        self.vectors = single
        self.random = torch.Generator().manual_seed(seed)

    def map(self):
        made = torch.randn(self.shape, generator=self.random, dtype=torch.float64)
        return made.to(self.dtype).contiguous(memory_format=self.layout)

    def vector(self, *size):
        made = torch.randn(*size, generator=self.random, dtype=torch.float64)
        return made.to(self.vectors)

    def positive(self, *size):
        return self.vector(*size).abs() + 0.5

    def token(self, *size):
        return torch.zeros((), dtype=self.vectors if size else self.dtype).expand(
            size or self.shape
        )

    def norm(self):
        c = self.channels
        return [self.vector(c), self.vector(c), self.vector(c), self.positive(c)]

    def unit(self):
        """Weights and biases of a recurrent unit."""
        c, r = self.channels, 3
        sizes = 2 * [(r, c), (r,), (3 * c, r), (3 * c,)]
        return [self.vector(*size) for size in sizes]


def coefficients(
    make: Maker, unit=True, norm=True, state=True, keep=True, first=False, head_channels=2
) -> list:
    """Arguments of ``light_coefficients`` behind the poolings."""
    b, c = make.batch, make.channels
    return [
        make.vector(b, 3 * c) if unit and state else None,
        make.vector(b, c) if unit and state else None,
        make.vector(1, 1, 3),
        make.vector(1, 1, 3),
        make.vector(c, 1, 3, 3),
        make.vector(c, 1, 1),
        make.vector(c, 1, 3, 3) if unit else None,
        make.unit() if unit else [],
        make.norm() if norm else [],
        1e-3,
        make.positive(b, 1) if norm and keep else None,
        head_channels,
        first,
    ]


def earlier(make: Maker, unit=True, state=True, first=False, head_channels=2, blocks=2) -> list:
    """Arguments of ``base_coefficients`` behind the poolings."""
    b, c = make.batch, make.channels
    return [
        *(make.vector(b, blocks, c) for _ in range(3)),
        make.vector(b, 3 * c) if unit and state else None,
        make.vector(b, c) if unit and state else None,
        make.vector(1, 1, 3),
        make.vector(1, 1, 3),
        make.unit() if unit else [],
        head_channels,
        1.5,
        first,
    ]


def arguments(name: str, make: Maker, **options) -> list:
    """Arguments of an operation.

    ``options`` go to :func:`coefficients` or, for base attention, to :func:`earlier`.
    """
    b, c, blocks = make.batch, make.channels, 3
    if name == 'add_relu_pool':
        return [make.map(), make.map()]
    if name == 'affine_add_relu_pool':
        return [make.map(), make.map(), make.vector(b, c), make.vector(b, c)]
    if name == 'dwconv_pool':
        return [make.map(), make.vector(c, 1, 3, 3)]
    if name in ('dual_dwconv', 'dual_dwconv_bn'):
        maps = [make.map(), make.map(), make.token(), make.vector(b, c, 9), make.vector(b, c, 9)]
        if name == 'dual_dwconv':
            return [*maps, make.vector(b, c)]
        return [*maps, make.vector(c), make.vector(c), make.positive(b, 1), 1e-3]
    if name == 'light_coefficients':
        y_shortcut = make.vector(b, c) if options.get('unit', True) else None
        return [make.vector(b, c), y_shortcut, *coefficients(make, **options)]
    if name.rstrip('_') == 'light_block':
        return [make.map(), make.map(), make.norm(), 1e-3, *coefficients(make, **options)]
    if name == 'base_coefficients':
        return [make.vector(b, c), make.vector(b, c), *earlier(make, **options)]
    if name.rstrip('_') == 'base_block':
        scale = make.vector(c, 1, 1) if options.get('unit', True) else None
        keep = None if options.get('first') else make.positive(b, 1)
        values = [make.map() for _ in range(options.get('blocks', 2))]
        branch = [make.norm(), 1e-3, keep, scale]
        block = [make.map(), make.map(), make.norm(), 1e-3, make.vector(c, 1, 3, 3), values]
        return [*block, *branch, *earlier(make, **options)]
    if name == 'update_statistics_':
        mean, var = make.vector(c), make.positive(c)
        return [make.vector(c), make.positive(c), torch.tensor(3), mean, var, 0.2, 7]
    weights, values = make.vector(b, blocks, c), [make.map() for _ in range(blocks)]
    if name == 'weighted_sum':
        return [weights, values]
    if name == 'carry_gradients':
        tokens = [make.token() for _ in range(2)] + [make.token(b, n, c) for n in (2, 3)]
        return [values[0], 1, tokens]
    vectors = [make.vector(b, c) for _ in range(3)]
    tokens = [make.token(), make.token(b, blocks, c)]
    if name == 'weighted_sum_relu_add':
        return [make.map(), weights, values, *tokens, *vectors]
    if name == 'weighted_sum_bn_relu_add':
        norm = [make.vector(c), make.vector(c), 1e-3]
        return [make.map(), weights, values, *tokens, vectors[0], *norm]
    raise ValueError(name)
