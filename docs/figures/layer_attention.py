"""Draw docs/figures/layer_attention.svg: one stage with DLA-B and one block with DLA-L."""

from pathlib import Path

import matplotlib

matplotlib.use('svg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

FILE = Path(__file__).with_suffix('.svg')
MAP, UNIT, VECTOR, WEIGHT = '#dbe7f5', '#fbe3c8', '#eef3da', '#f3dcea'
FORWARD, BACKWARD, PLAIN = '#b45f06', '#a0296b', '#444444'
Point = tuple[float, float]


def box(axes: Axes, at: Point, text: str, color: str, width: float = 1.1) -> None:
    """A box with its centre ``at``."""
    x, y = at
    style = 'round,pad=0.04,rounding_size=0.08'
    axes.add_patch(
        FancyBboxPatch((x - width / 2, y - 0.2), width, 0.4, boxstyle=style, fc=color, ec=PLAIN)
    )
    axes.text(x, y, text, ha='center', va='center', fontsize=10)


def arrow(axes: Axes, start: Point, end: Point, color: str = PLAIN, bend: float = 0.0) -> None:
    style = dict(arrowstyle='-|>', color=color, lw=1.3, connectionstyle=f'arc3,rad={bend}')
    axes.annotate('', end, start, arrowprops=style)


def draw_base(axes: Axes) -> None:
    """Three blocks; the third refreshes keys and values of the first two."""
    axes.set_title('DLA-B: three blocks of a stage', fontsize=11)
    for l in (1, 2, 3):  # noqa: E741 - the block's letter in the equations
        x = 2.2 * l
        box(axes, (x, 3.4), f'DSU: $h_{l}, c_{l}$', UNIT, 1.3)
        box(axes, (x, 2.3), f'$x_{l}$', MAP)
        box(axes, (x, 1.2), f'$k_{l}, v_{l}$', VECTOR)
        arrow(axes, (x, 2.56), (x, 3.14), FORWARD)
        arrow(axes, (x, 2.04), (x, 1.46))
        if l < 3:
            arrow(axes, (x + 0.72, 3.4), (x + 1.48, 3.4), FORWARD)
            arrow(axes, (x + 0.6, 2.3), (x + 1.6, 2.3))
            arrow(axes, (6.3, 3.1), (x + 0.5, 1.46), BACKWARD, -0.08)
        arrow(axes, (x, 0.94), (6.0 if l < 3 else 6.6, 0.34), bend=0.05)
    box(axes, (6.6, 0.1), '$o_3$', WEIGHT)
    axes.text(3.3, 3.56, '$h, c$', color=FORWARD, ha='center', fontsize=9)
    axes.text(2.3, 2.83, 'GAP', color=FORWARD, fontsize=9)
    axes.text(1.5, 0.1, 'softmax over the blocks', color=PLAIN, fontsize=9)
    axes.text(1.5, 1.72, 'refresh', color=BACKWARD, fontsize=9)
    axes.set(xlim=(1.3, 7.5), ylim=(-0.25, 3.85))


def draw_light(axes: Axes) -> None:
    """One block."""
    axes.set_title('DLA-L: block $l$', fontsize=11)
    box(axes, (1.2, 3.4), 'DSU: $h_l, c_l$', UNIT, 1.3)
    box(axes, (4.0, 3.4), 'DSU: $d_l$', UNIT, 1.3)
    box(axes, (1.2, 2.3), '$x_l$', MAP)
    box(axes, (4.0, 2.3), '$s_l$', MAP)
    box(axes, (1.2, 1.2), r'$a_l \odot V(x_l)$', VECTOR, 1.5)
    box(axes, (4.0, 1.2), r'$\tilde s_l = d_l \odot s_l + E(s_l)$', VECTOR, 2.3)
    box(axes, (2.6, 0.1), '$o_l$', WEIGHT)
    for x in (1.2, 4.0):
        arrow(axes, (x, 2.56), (x, 3.14), FORWARD)
        arrow(axes, (x, 2.04), (x, 1.46))
    arrow(axes, (1.92, 3.4), (3.28, 3.4), FORWARD)
    arrow(axes, (4.72, 3.3), (4.8, 1.46), BACKWARD, -0.35)
    arrow(axes, (1.2, 0.94), (2.1, 0.34))
    arrow(axes, (4.0, 0.94), (3.1, 0.34))
    axes.text(1.3, 2.83, 'GAP', color=FORWARD, fontsize=9)
    axes.text(4.1, 2.83, 'GAP', color=FORWARD, fontsize=9)
    axes.text(3.75, 0.52, r'$\odot \lambda_l$', fontsize=10)
    axes.text(5.2, 2.3, 'refresh', color=BACKWARD, fontsize=9)
    axes.set(xlim=(0.2, 6.0), ylim=(-0.25, 3.85))


def main() -> None:
    # the same file from every run
    plt.rcParams['svg.hashsalt'] = 'mmdla'
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.1), layout='constrained')
    draw_base(left)
    draw_light(right)
    for axes in (left, right):
        axes.set_aspect('equal')
        axes.axis('off')
    figure.savefig(FILE, metadata=dict(Date=None))
    print(f'{FILE}, {FILE.stat().st_size} bytes')


if __name__ == '__main__':
    main()
