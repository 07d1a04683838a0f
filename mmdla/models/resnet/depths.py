"""Depth of a parameter, for learning rates that decay from layer to layer."""

import re
from collections.abc import Sequence

BLOCK = re.compile(r'layer(\d+)\.(\d+)\.')
ATTENTION = re.compile(r'layer(\d+)\.attention\.(?:(?:blocks|read|norms|eca)\.(\d+)\.)?')


def layer_depth(name: str, prefix: str, stage_blocks: Sequence[int]) -> tuple[int, int]:
    """Depth of a parameter and the number of depths, as MMPretrain's ``ResNet`` counts them.

    The stem has depth 0; the second and third stage are divided into groups of blocks. What the
    attention keeps for each block belongs to that block; what its blocks share (the DSU, ``E``)
    serves the last of them too and learns at that one's rate.

    Args:
        name (str): Name of the parameter in the whole model.
        prefix (str): Prefix of the backbone in it.
        stage_blocks (Sequence[int]): Blocks of each stage.
    """
    long = stage_blocks[1:2] == (8,) and len(stage_blocks) > 2  # 152 layers
    sizes = (stage_blocks[0], 4, 4) if long else (stage_blocks[0], 2, 3)
    groups = [
        -(-blocks // (sizes[i] if i < 3 else blocks)) for i, blocks in enumerate(stage_blocks)
    ]
    last = sum(groups) + 1  # the depth of what follows the backbone
    if not name.startswith(prefix):
        return last, last + 1
    name = name[len(prefix) :]
    match = BLOCK.match(name) or ATTENTION.match(name)
    if match is None:
        return 0, last + 1
    stage = int(match[1]) - 1
    block = stage_blocks[stage] - 1 if match[2] is None else int(match[2])
    size = sizes[stage] if stage < 3 else stage_blocks[stage]
    return 1 + sum(groups[:stage]) + block // size, last + 1
