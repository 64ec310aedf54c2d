import gzip
from pathlib import Path

import pytest

from pseudolabel.datasets import text_file
from pseudolabel.errors import InputError


def test_a_small_file_cannot_unpack_to_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "boxes.json.gz"
    path.write_bytes(gzip.compress(b" " * (5 << 20)))
    assert len(text_file.read_text(path)) == 5 << 20
    monkeypatch.setattr(text_file, "MOST_UNPACKED_BYTES", 2 << 20)
    with pytest.raises(InputError, match=r"boxes\.json\.gz: unpacks to more than 2097152 bytes"):
        text_file.read_text(path)


def test_a_large_plain_file_has_no_such_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "MOST_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "boxes.json"
    path.write_bytes(b" " * (3 << 20))
    assert len(text_file.read_text(path)) == 3 << 20
