"""Files of safetensors, which hold tensors and nothing that could be executed."""

from typing import IO

from torch import Tensor

from .errors import CheckpointError

LONGEST_HEADER = 1 << 27  # bytes; the format allows 100 MB


def is_safetensors(file: str | IO[bytes]) -> bool:
    """Return whether a file begins as one of safetensors: the length of a JSON object, and that."""
    start = first_bytes(file)
    length = int.from_bytes(start[:8], 'little')
    return len(start) > 8 and start[8:9] == b'{' and length < LONGEST_HEADER


def load_safetensors(file: str | IO[bytes]) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Args:
        file (str): A path or an open file.

    Raises:
        CheckpointError: The package is not installed, or the file is damaged.
    """
    try:
        import safetensors.torch as reader
    except ImportError as error:
        raise CheckpointError(
            f'{name_of(file)}: a safetensors file; reading it needs: pip install safetensors'
        ) from error
    try:
        return reader.load_file(file) if isinstance(file, str) else reader.load(file.read())
    except Exception as error:  # its own kind, or of NumPy and PyTorch
        raise CheckpointError(
            f'{name_of(file)}: damaged, or no safetensors file ({type(error).__name__}: {error})'
        ) from error


def name_of(file: str | IO[bytes]) -> str:
    """Return what an error calls a file."""
    return file if isinstance(file, str) else str(getattr(file, 'name', 'a file object'))


def first_bytes(file: str | IO[bytes]) -> bytes:
    """Return the first bytes of a file; an open one stays where it is."""
    if isinstance(file, str):
        with open(file, 'rb') as opened:
            return opened.read(16)
    position = file.tell()
    start = file.read(16)
    file.seek(position)
    return start
