"""Tar shards and Parquet files as others write them, with pictures of noise in them."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

KEY_ID, SECRET = "AKIDFORTESTS", "secret-value-of-the-tests"  # any will do: the server asks nobody
NAMES = tuple(f"{folder}/{number:03d}.png" for folder in ("a", "b") for number in range(6))
SIZE_HW = (90, 120)


@dataclass(frozen=True)
class Places:
    """The same pictures in a folder, in two tar shards and in two Parquet files."""

    folder: Path
    tar: str
    parquet: str
    pictures: dict[str, bytes]


def noise_picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, pictures: dict[str, bytes]) -> None:
    """As WebDataset writes them: every image with a small file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in pictures.items():
            for member, content in ((name, data), (str(Path(name).with_suffix(".json")), b'{"caption": "noise"}')):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_parquet(path: Path, pictures: dict[str, bytes], rows_per_group: int = 2) -> None:
    """As Hugging Face writes them, with a heavy column that nobody wants."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": data, "path": name} for name, data in pictures.items()]
    ballast = [np.random.default_rng(7).bytes(200_000).hex() for _ in cells]
    table = pa.table({"caption": ballast, "image": cells})
    pq.write_table(table, path, row_group_size=rows_per_group, use_dictionary=False, compression="none")
