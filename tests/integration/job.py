"""Jobs of several processes, started by the launch scripts as a user starts them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).parents[2]


class Job:
    """``Job('dist_train.sh', CONFIG, 2)``: a running script of ``tools/``, all of it ended at exit.

    Args:
        script (str): Its name.
        *argv: Its arguments.
        log (Path): File for what all processes print.
        path (Path, optional): Folder of stand-ins for commands.
        **env: Further environment variables.
    """

    def __init__(self, script, *argv, log, path=None, **env):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'OMPI_'))}
        for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'PORT'):
            kept.pop(name, None)
        paths = [str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]
        kept.update(
            CUDA_VISIBLE_DEVICES='-1',
            PYTHON=sys.executable,
            PYTHONPATH=os.pathsep.join(filter(None, paths)),
            OMP_NUM_THREADS='1',
            **env,
        )
        if path is not None:
            kept['PATH'] = f'{path}:{kept["PATH"]}'
        self.log = log
        self.process = subprocess.Popen(
            [REPO / 'tools' / script, *map(str, argv)],
            cwd=log.parent,
            env=kept,
            stdout=log.open('w'),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self, seconds=300):
        """Exit code of the script."""
        return self.process.wait(seconds)

    def wait_for(self, path, seconds=300):
        """Until a file is there."""
        end = time.monotonic() + seconds
        while not path.exists():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.2)

    def process_of(self, rank):
        """Process id of a rank."""
        pid = self.process.pid
        for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split():
            if f'RANK={rank}'.encode() in Path(f'/proc/{child}/environ').read_bytes().split(b'\0'):
                return int(child)
        raise LookupError(f'no rank {rank} in:\n{self.output}')

    @property
    def output(self):
        return self.log.read_text()
