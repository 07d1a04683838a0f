"""The photographs of the demo: two aerial images with tree crowns marked by hand.

They are part of the package deepforest (MIT licence; images of the NEON project).
"""

import zipfile
from pathlib import Path

from wheels import DataWheel

WHEEL = DataWheel(
    'deepforest==2.1.0',
    'deepforest-2.1.0-py3-none-any.whl',
    '8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54',
)
NAMES = ('2019_YELL_2_528000_4978000_image_crop2', '2019_YELL_2_541000_4977000_image_crop')


def unpack(folder: Path) -> list[Path]:
    """Write the photographs and their XML files into ``folder``; return the images' paths.

    Raises:
        DataError: They cannot be fetched.
    """
    wheel = WHEEL.fetch()
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in NAMES:
            for suffix in ('.png', '.xml'):
                (folder / f'{name}{suffix}').write_bytes(
                    archive.read(f'deepforest/data/{name}{suffix}')
                )
    return [folder / f'{name}.png' for name in NAMES]
