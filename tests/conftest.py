import torch
from fixtures import (  # noqa: F401
    repo,
    resnet_checkpoint,
    run_process,
    tiny_coco,
    tiny_imagenet,
    tool,
)

torch.set_num_threads(min(2, torch.get_num_threads()))
