import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from pseudolabel.errors import MachineError
from pseudolabel.files import atomic_path, machine_faults_named, sweep_temporaries, temporary_name
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, commit_table, read_footer, read_part, verify_part

FOOTER = Footer("fuse", 1, "f" * 64, shard=3, num_shards=8, n_in=3000, n_ok=3000, n_rejected=0)


def _table() -> pa.Table:
    return pa.table({"key": [f"image-{i}" for i in range(3000)], "bytes": [os.urandom(40) for _ in range(3000)]})


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "pseudo" / "part-00003-of-00008.parquet"
    commit_table(_table(), path, FOOTER)
    return path


def test_commit_writes_what_is_read_back_and_leaves_no_temporary_file(part: Path) -> None:
    assert read_footer(part) == FOOTER
    assert verify_part(part) == FOOTER
    assert read_part(part, columns=["key"])["key"][2999].as_py() == "image-2999"
    assert [path.name for path in part.parent.iterdir()] == [part.name]


def test_commit_gives_the_same_bytes_for_the_same_table(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3]})
    commit_table(table, tmp_path / "one.parquet", FOOTER)
    commit_table(table, tmp_path / "two.parquet", FOOTER)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def _flip_bit(data: bytearray) -> bytearray:
    data[len(data) // 3] ^= 4
    return data


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data[:-1], id="tail cut"),
        pytest.param(_flip_bit, id="one bit flipped"),
        pytest.param(lambda data: data[:4096] + bytes(4096) + data[8192:], id="4 KiB of zeros"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: os.urandom(len(data)), id="garbage"),
    ],
)
def test_a_damaged_part_never_verifies(part: Path, damage) -> None:
    part.write_bytes(bytes(damage(bytearray(part.read_bytes()))))
    with pytest.raises(DamagedPartError, match="part-00003"):
        verify_part(part)


def test_every_flipped_bit_of_the_pages_is_noticed(part: Path) -> None:
    original = part.read_bytes()
    for position in range(4, len(original) // 2, 997):
        data = bytearray(original)
        data[position] ^= 1
        part.write_bytes(data)
        with pytest.raises(DamagedPartError):
            verify_part(part)


def test_a_parquet_file_of_somebody_else_is_no_part(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DamagedPartError, match="not one that pseudolabel wrote"):
        read_footer(tmp_path / "x.parquet")


def test_a_failing_write_leaves_the_old_file_and_no_temporary(part: Path) -> None:
    before = part.read_bytes()

    def write_half() -> None:
        with atomic_path(part) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("killed half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert part.read_bytes() == before
    assert [path.name for path in part.parent.iterdir()] == [part.name]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.ENOSPC, "no space left", id="disk full"),
        pytest.param(errno.EDQUOT, "no space left", id="quota"),
        pytest.param(errno.EROFS, "cannot write", id="read-only"),
        pytest.param(errno.EACCES, "cannot write", id="permission"),
    ],
)
def test_a_machine_fault_names_the_path_and_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pseudolabel.files.fsync", fail)
    with pytest.raises(MachineError, match=words) as caught:
        commit_table(pa.table({"a": [1]}), tmp_path / "x.parquet", FOOTER)
    assert "x.parquet" in str(caught.value)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_by_the_real_device(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(MachineError, match="no space left"),
        machine_faults_named(tmp_path / "x"),
        open("/dev/full", "wb", buffering=0) as sink,
    ):
        sink.write(b"x")


def test_sweep_removes_files_of_dead_processes_only(tmp_path: Path) -> None:
    mine = tmp_path / temporary_name("a.parquet")
    mine.touch()
    dead = tmp_path / mine.name.replace(f".{os.getpid()}.", ".4194999.")
    dead.touch()
    elsewhere = tmp_path / ".a.parquet.another-host.4194999.abcdef01.tmp"
    elsewhere.touch()
    assert sweep_temporaries(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, elsewhere.name])
