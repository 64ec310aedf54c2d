"""Every kind of file of a run, a bit flipped anywhere in it: `verify` names the file, and no command shows a traceback.

PSEUDOLABEL_FLIPS sets how many flips each kind gets.
"""

import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from own_chain import digests, draw_scenes, run_scenes

from pseudolabel.cli.main import main
from pseudolabel.errors import PseudolabelError
from pseudolabel.pipelines.run.commit import FOOTER_KEY, DamagedPartError, read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.seals import seal
from pseudolabel.pipelines.verify import verify_run
from pseudolabel.training.checkpoint import save_model

FLIPS = int(os.environ.get("PSEUDOLABEL_FLIPS", "5"))
KINDS = {
    "plan": "plan.json",
    "a plan's part": "plan/part-*",
    "manifest": "manifest/part-*",
    "label maps": "semantic/part-*",
    "candidates": "candidates/semantic/part-*",
    "pseudo labels": "pseudo/part-*",
    "instances": "pseudo/instances.json",
    "results": "pseudo/results.json",
    "provenance": "pseudo/provenance.json",
    "config": "config/pseudo.yaml",
    "a seal": "_seals/pseudo/instances.json.json",
    "model": "models/teacher.safetensors",
    "a model's config": "models/teacher.yaml",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run with two shards, exports, and a model."""
    folder = tmp_path_factory.mktemp("damage")
    run = run_scenes(draw_scenes(folder / "scenes", count=4), folder / "run", shards=2)
    save_model(run.model("teacher"), {"weight": torch.arange(12.0)}, {"method": "mal"})
    for path in (run.root / "models").iterdir():
        seal(run, path)
    assert verify_run(run) == []
    return run


@pytest.fixture
def run(finished: RunPaths, tmp_path: Path) -> RunPaths:
    """A copy of the run that may be damaged; its images stay where they are."""
    shutil.copytree(finished.root, tmp_path / "run")
    return RunPaths(tmp_path / "run")


def _flip(path: Path, bit: int) -> bytes:
    """Flip a bit of a file; what it was."""
    before = path.read_bytes()
    data = bytearray(before)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return before


@pytest.mark.parametrize("pattern", KINDS.values(), ids=list(KINDS))
def test_every_flipped_bit_is_noticed_and_the_file_named(run: RunPaths, pattern: str) -> None:
    random_bits = random.Random(pattern)
    paths = sorted(run.root.glob(pattern))
    assert paths
    missed = []
    for _ in range(FLIPS):
        path = random_bits.choice(paths)
        bit = random_bits.randrange(8 * path.stat().st_size)
        before = _flip(path, bit)
        problems = verify_run(run)
        if not any(path.name.removesuffix(".json") in problem for problem in problems):
            missed.append((path.name, bit))
        path.write_bytes(before)
    assert missed == []
    assert verify_run(run) == []


def test_every_byte_of_a_parquet_footer_is_guarded(run: RunPaths) -> None:
    path = run.part("pseudo", 0, 2)
    size = path.stat().st_size
    length = int.from_bytes(path.read_bytes()[-8:-4], "little") + 8
    for position in range(size - length, size, max(1, length // (40 * FLIPS))):
        before = _flip(path, 8 * position + position % 8)
        with pytest.raises(DamagedPartError, match="part-00000"):
            read_footer(path)
        path.write_bytes(before)


@pytest.mark.parametrize("pattern", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1, 2", b"\xff" * 64, b"null"], ids=["empty", "{}", "cut", "ff", "null"]
)
def test_a_file_of_other_content_gives_no_traceback(run: RunPaths, pattern: str, content: bytes) -> None:
    next(iter(sorted(run.root.glob(pattern)))).write_bytes(content)
    for command in (["status"], ["status", "--json"], ["verify"], ["status", "--rejected"]):
        result = CliRunner().invoke(main, [command[0], str(run.root), *command[1:]])
        assert result.exception is None or isinstance(result.exception, PseudolabelError | SystemExit), result.exc_info
    assert verify_run(run)


def test_a_note_of_known_parts_that_is_damaged_costs_a_reading_alone(run: RunPaths, finished: RunPaths) -> None:
    for note in run.root.glob("_known/**/*.json"):
        _flip(note, 8 * (note.stat().st_size // 2))
    scenes = finished.root.parent / "scenes" / "scenes"
    assert digests(run_scenes(scenes, run.root, shards=2)) == digests(finished)


def test_deleted_and_damaged_exports_are_made_again_and_sound_ones_are_left(run: RunPaths, finished: RunPaths) -> None:
    folder = run.table("pseudo")
    (folder / "results.json").unlink()
    assert [str(folder / "results.json") in problem for problem in verify_run(run)] == [True]
    scenes = finished.root.parent / "scenes" / "scenes"
    run_scenes(scenes, run.root, shards=2)
    assert verify_run(run) == []
    assert digests(run) == digests(finished)
    before = (folder / "instances.json").stat().st_mtime_ns
    run_scenes(scenes, run.root, shards=2)
    assert (folder / "instances.json").stat().st_mtime_ns == before


def test_an_export_of_other_parts_is_told(run: RunPaths, tmp_path: Path, finished: RunPaths) -> None:
    other = run_scenes(finished.root.parent / "scenes" / "scenes", tmp_path / "other", shards=2)
    shutil.copy(finished.part("pseudo", 0, 2), run.part("pseudo", 1, 2))
    problems = "\n".join(verify_run(run))
    assert "says that it is shard 0 of 2" in problems
    assert "made of other parts" in problems
    assert "images are in it or in the manifest alone" in problems
    assert verify_run(other) == []


def test_a_part_that_another_tool_wrote_anew_is_no_part_of_ours(run: RunPaths) -> None:
    import pyarrow.parquet as pq

    path = run.part("candidates/semantic", 0, 2)
    table = read_part(path)
    assert FOOTER_KEY in table.schema.metadata
    pq.write_table(table, path)  # keeps our footer, and with it the old fingerprint
    with pytest.raises(DamagedPartError, match="another tool wrote it anew"):
        read_part(path)


def test_an_image_that_was_written_since_is_told_and_by_content_where_asked(finished: RunPaths, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    shutil.copytree(finished.root.parent / "scenes" / "scenes", scenes)
    run = run_scenes(scenes, tmp_path / "own", shards=2)
    image = sorted((scenes / "images").iterdir())[0]
    os.utime(image)
    assert [f"{image.name}: written since" in problem for problem in verify_run(run)] == [True]
    assert not any("its content is not" in problem for problem in verify_run(run, content=True))
    _flip(image, 8 * (image.stat().st_size - 20))
    assert any(f"{image.name}: its content is not" in problem for problem in verify_run(run, content=True))
