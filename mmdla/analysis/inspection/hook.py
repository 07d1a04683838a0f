"""A hook that shows during training what the layer attention does."""

from contextlib import ExitStack

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...models.arguments import check_bool, check_int
from .recording import find_backbones, make_all_recorders, record


@HOOKS.register_module()
class LayerAttentionHook(Hook):
    """Write what the layer attention did in every n-th training iteration to the visualizer.

    One figure for every quantity goes through ``Visualizer.add_image`` and its mean in every
    stage and block through ``add_scalars``, so they are where the back-ends of the config put
    them: in TensorBoard with ``vis_backends=[dict(type='TensorboardVisBackend')]``, in
    ``vis_data`` with the local one. The training itself stays the same bit for bit.

    Args:
        interval (int): Iterations from one recording to the next. Default: 500.
        figures (bool): Draw figures besides the scalars. Default: True.
        backbone (str, optional): Which of several backbones, e.g. ``'student'`` or
            ``'student.backbone'``. Default: all, their names before those of the stages.

    Raises:
        TypeError: ``backbone`` is no name.
        ValueError: When training starts, if the model has no layer attention to show.

    Example:
        >>> custom_hooks = [dict(type='LayerAttentionHook', interval=500)]
    """

    priority = 'LOW'

    def __init__(
        self, interval: int = 500, figures: bool = True, backbone: str | None = None
    ) -> None:
        if not (backbone is None or isinstance(backbone, str)):
            raise TypeError(f'backbone must be the name of a module or None, got {backbone!r}')
        self.backbone = backbone
        self.interval = check_int('interval', interval)
        self.figures = check_bool('figures', figures)
        self._recording = None
        self._stack = ExitStack()

    def before_train(self, runner) -> None:
        # refuses what cannot be shown
        make_all_recorders(find_backbones(runner.model, self.backbone))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.every_n_train_iters(runner, self.interval) and is_main_process():
            self._recording = self._stack.enter_context(record(runner.model, self.backbone))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self._recording is None:
            return
        self._stack.close()
        recording, self._recording = self._recording, None
        if recording.passes:
            self.write(runner.visualizer, recording.stages(), runner.iter + 1)

    def write(self, visualizer, stages, step: int) -> None:
        """Hand figures and scalars of these stages to a visualizer."""
        from .catalogue import FIGURES
        from .figures import draw, to_array  # with matplotlib, which takes its time

        visualizer.add_scalars(scalars(stages), step=step)
        for figure in FIGURES if self.figures else ():
            shown = [stage for stage in stages if figure.is_in(stage)]
            if shown:
                image = to_array(draw(figure, shown))
                visualizer.add_image(f'layer_attention_{figure.name}', image, step=step)


def scalars(stages) -> dict[str, float]:
    """Return the means of every quantity, e.g. ``'layer_attention/layer3/gates/block2'``.

    For the weights between blocks, of which each row sums to 1, it is the weight that a block
    gives itself; for what is kept of the values, what is left of the first one's.
    """
    result = {}
    for stage in stages:
        for name in stage.quantities:
            if name == 'weights':
                means = stage.matrix(name).diagonal()  # (L,)
            elif name == 'kept':
                means = stage.matrix(name)[:, 0]  # (L,)
            else:
                means = stage.per_block(name).mean(1)  # (L,)
            for block, mean in enumerate(means.tolist(), 1):
                result[f'layer_attention/{stage.stage}/{name}/block{block}'] = mean
    return result
