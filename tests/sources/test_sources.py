"""Images out of stores, tar shards and Parquet files are those of the folder, by ranges, whatever the line does."""

import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from breaking_proxy import BreakingProxy
from made_archives import KEY_ID, NAMES, SECRET, Places, write_parquet, write_tar

from pseudolabel.datasets import open_dataset
from pseudolabel.errors import ConfigError, InputError, MachineError, PassingFaultError, RejectError, hide_credentials
from pseudolabel.images import load_image, read_file
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.sources import open_source
from pseudolabel.sources.place import Place, parse_place, plain_name

LIMIT = 1 << 20


def everything(root: str) -> dict[str, bytes]:
    """Every image of a source by its plain name without the archive's."""
    source = open_source(root)
    return {plain_name(name): source.read(name, max_bytes=LIMIT) for name in source.names()}


def test_a_prefix_of_a_store_gives_what_the_folder_gives(s3: Any, places: Places) -> None:
    assert everything("s3://pictures/folder") == places.pictures == everything(str(places.folder))


@pytest.mark.parametrize("root", ["s3://pictures/shards/train-{000..001}.tar", "s3://pictures/shards/*.tar", "local"])
def test_tar_shards_give_what_the_folder_gives(s3: Any, places: Places, root: str) -> None:
    found = everything(places.tar if root == "local" else root)
    assert found == {f"train-{place // 6:03d}.tar/{name}": places.pictures[name] for place, name in enumerate(NAMES)}


@pytest.mark.parametrize("root", ["s3://pictures/data/train-{0..1}.parquet", "s3://pictures/data/*.parquet", "local"])
def test_parquet_files_give_what_the_folder_gives(s3: Any, places: Places, root: str) -> None:
    found = everything(places.parquet if root == "local" else root)
    rows = [f"train-{place // 6}.parquet/{place % 6:08d}" for place in range(12)]
    assert found == dict(zip(rows, places.pictures.values(), strict=True))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_annotations_may_call_an_image_by_its_own_name(places: Places, kind: str) -> None:
    source = open_source(getattr(places, kind))
    located = source.located("b/003.png")
    assert plain_name(located) == "b/003.png"
    assert source.read(located, max_bytes=LIMIT) == source.read("b/003.png", max_bytes=LIMIT)
    assert source.read(located, max_bytes=LIMIT) == places.pictures["b/003.png"]


def test_one_image_of_a_tar_costs_its_own_bytes(s3: Any, places: Places, proxy: BreakingProxy) -> None:
    name = list(open_source("s3://pictures/shards/train-{000..001}.tar").names())[7]
    archives = sum(path.stat().st_size for path in Path(places.tar).parent.iterdir())
    _forget_sources()
    proxy.forget()
    data = read_file("s3://pictures/shards/train-{000..001}.tar", name)
    assert data == places.pictures["b/001.png"]
    assert len(data) < proxy.bytes_down < len(data) + 4000  # answers have heads, and a member a header
    assert proxy.bytes_down < archives / 10


def test_the_index_of_a_tar_reads_headers_only(s3: Any, places: Places, proxy: BreakingProxy) -> None:
    _forget_sources()
    proxy.forget()
    assert len(list(open_source("s3://pictures/shards/train-{000..001}.tar").names())) == 12
    archives = sum(path.stat().st_size for path in Path(places.tar).parent.iterdir())
    assert proxy.bytes_down < archives / 4


def test_a_parquet_file_gives_one_column_of_one_row_group(s3: Any, places: Places, proxy: BreakingProxy) -> None:
    _forget_sources()
    source = open_source("s3://pictures/data/train-{0..1}.parquet")
    names = list(source.names())
    proxy.forget()
    data = [source.read(name, max_bytes=LIMIT) for name in names[2:4]]  # the second row group
    assert data == [places.pictures[name] for name in NAMES[2:4]]
    assert sum(request.startswith("GET") for request in proxy.requests) == 1
    assert sum(map(len, data)) < proxy.bytes_down < sum(map(len, data)) + 4000


def _forget_sources() -> None:
    from pseudolabel import sources

    sources._open.cache_clear()


@pytest.mark.parametrize("root", ["folder", "shards/train-{000..001}.tar", "data/train-{0..1}.parquet"])
def test_an_answer_that_is_cut_off_is_asked_for_again(s3: Any, places: Places, proxy: BreakingProxy, root: str) -> None:
    name = list(open_source(f"s3://pictures/{root}").names())[4]
    _forget_sources()
    proxy.when = lambda request: request.startswith("GET") and "list-type" not in request
    proxy.break_next = 2
    assert read_file(f"s3://pictures/{root}", name) == places.pictures["a/004.png"]
    assert proxy.broken == 2


def test_a_line_that_stays_broken_is_the_machines_fault_and_may_pass(
    s3: Any, proxy: BreakingProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pseudolabel.sources.store.TRIES", 2)
    open_source("s3://pictures/folder").check()
    proxy.break_next = 10_000
    with caplog.at_level(logging.WARNING), pytest.raises(PassingFaultError, match=r"a/000\.png.*tried 2 times") as told:
        read_file("s3://pictures/folder", "a/000.png")
    assert "trying again in" in caplog.text
    assert SECRET not in caplog.text + str(told.value)


def test_a_missing_key_is_a_reject_and_a_missing_bucket_an_error(s3: Any) -> None:
    with pytest.raises(RejectError, match="missing"):
        read_file("s3://pictures/folder", "a/no.png")
    for root in ("s3://no-such-bucket/folder", "s3://pictures/no-such-prefix"):
        with pytest.raises(InputError, match="no such bucket, folder or file"):
            open_source(root).check()


def test_a_store_that_denies_access_fails_the_shard_and_rejects_nothing(s3: Any, proxy: BreakingProxy) -> None:
    _forget_sources()
    source = open_source("s3://pictures/folder")
    proxy.deny = True
    for act in (source.check, lambda: source.read("a/000.png", max_bytes=LIMIT)):
        with pytest.raises(MachineError, match="denies access; check the credentials") as told:
            act()
        assert KEY_ID not in str(told.value)
        assert SECRET not in str(told.value)


def test_names_do_not_lead_out_of_a_prefix(s3: Any) -> None:
    s3.put_object(Bucket="pictures", Key="secret.png", Body=b"x")
    for name in ("../secret.png", "/pictures/secret.png", "s3://pictures/secret.png"):
        with pytest.raises(RejectError, match=r"outside_root|bad_name"):
            read_file("s3://pictures/folder", name)


def test_an_odd_key_is_read_under_its_own_name(s3: Any) -> None:
    name = "ü b/100% #1?&+.png"
    s3.put_object(Bucket="pictures", Key=f"odd/{name}", Body=b"\x89PNG")
    assert everything("s3://pictures/odd") == {name: b"\x89PNG"}


def test_an_object_over_the_limit_is_refused_unread(s3: Any, proxy: BreakingProxy) -> None:
    s3.put_object(Bucket="pictures", Key="big/a.png", Body=bytes(300_000))
    s3.put_object(Bucket="pictures", Key="big/none.png", Body=b"")
    proxy.forget()
    with pytest.raises(RejectError, match="too_large: 300000 bytes, at most 200000"):
        read_file("s3://pictures/big", "a.png", max_bytes=200_000)
    assert proxy.bytes_down < 5000
    with pytest.raises(RejectError, match="empty_file"):
        read_file("s3://pictures/big", "none.png")


def test_a_forked_process_opens_its_own_connections(s3: Any, places: Places) -> None:
    root = "s3://pictures/shards/train-{000..001}.tar"
    name = next(iter(open_source(root).names()))
    read_file(root, name)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if read_file(root, name) == places.pictures["a/000.png"] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_tar_that_is_cut_off_within_a_member_loses_that_member_alone(tmp_path: Path, places: Places) -> None:
    path = tmp_path / "cut.tar"
    write_tar(path, {name: places.pictures[name] for name in NAMES[:3]})
    last = parse_place(list(open_source(str(path)).names())[2])
    assert last is not None
    os.truncate(path, last.start + 1000)
    _forget_sources()
    source = open_source(str(path))
    first, second, third = source.names()
    assert [source.read(name, max_bytes=LIMIT) for name in (first, second)] == [places.pictures[n] for n in NAMES[:2]]
    with pytest.raises(RejectError, match=r"undecodable: cut\.tar is cut off within this member"):
        source.read(third, max_bytes=LIMIT)
    row = list(open_dataset("folder", images=str(path)).rows())[-1]
    assert (row["image_key"], row["reason"]) == ("cut.tar", "undecodable")
    assert "cut off or damaged after 3 images" in row["detail"]


def test_a_tar_that_was_written_anew_after_the_plan_is_noticed(tmp_path: Path, places: Places) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {"x.png": places.pictures["a/000.png"]})
    (name,) = open_source(str(path)).names()
    _forget_sources()
    write_tar(path, {"another name.png": b"\x89PNG" * 99, "x.png": places.pictures["a/000.png"]})
    with pytest.raises(RejectError, match="changed_since_plan"):
        read_file(str(path), name)


def test_a_name_in_two_shards_has_to_be_said_with_its_shard(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": b"one"})
    write_tar(tmp_path / "1.tar", {"a.png": b"two"})
    root = str(tmp_path / "{0..1}.tar")
    with pytest.raises(RejectError, match=r"duplicate_image: 2 members have this name \(0\.tar, 1\.tar\)"):
        read_file(root, "a.png")
    assert read_file(root, "1.tar/a.png") == b"two"


def test_a_place_cannot_name_an_archive_that_the_source_does_not(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": b"one"})
    write_tar(tmp_path / "hidden.tar", {"a.png": b"two"})
    with pytest.raises(RejectError, match=r"missing: .* names no archive 'hidden\.tar'"):
        read_file(str(tmp_path / "0.tar"), "a.png@hidden.tar:512+3")


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100], ids=["empty", "garbage"])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    for name, words in (("x.tar", "not a tar archive"), ("x.parquet", "not a Parquet file")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"x\.{name[2:]}: {words}"):
            list(open_source(str(tmp_path / name)).names())


def test_a_compressed_tar_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read in ranges; unpack it"):
        open_source(str(tmp_path / "x.tar.gz"))


def test_a_missing_archive_and_a_missing_column_are_named(tmp_path: Path, places: Places) -> None:
    with pytest.raises(InputError, match=r"shard-0\.tar"):
        open_source(str(tmp_path / "shard-{0..3}.tar")).check()
    with pytest.raises(InputError, match="no archive of such a name"):
        open_source(str(tmp_path / "*.tar")).check()
    with pytest.raises(InputError, match=r"no column 'photo' with images \(columns: caption, image\)"):
        open_source(places.parquet + "#photo").check()
    pq.write_table(pa.table({"a": [b"1"], "b": [b"2"]}), tmp_path / "two.parquet")
    with pytest.raises(InputError, match=r"2 columns may hold images \(a, b\); name one with  FILE\.parquet#COLUMN"):
        open_source(str(tmp_path / "two.parquet")).check()
    assert everything(str(tmp_path / "two.parquet#b")) == {"two.parquet/00000000": b"2"}


def test_a_row_without_bytes_is_a_reject(tmp_path: Path) -> None:
    cells = [{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": "b.png"}, None, {"bytes": b"", "path": "d.png"}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    root = str(tmp_path / "a.parquet")
    assert read_file(root, "a.png") == b"x"
    for row, reason in ((1, "missing"), (2, "missing"), (3, "empty_file")):
        with pytest.raises(RejectError, match=reason):
            read_file(root, f"a.parquet/{row:08d}")
    with pytest.raises(RejectError, match="changed_since_plan"):
        read_file(root, "a.png@a.parquet:4")


def test_images_of_one_row_group_share_a_shard_key(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {f"{n}.png": b"x" for n in range(5)}, rows_per_group=2)
    source = open_source(str(tmp_path / "a.parquet"))
    assert [source.shard_key(name) for name in source.names()] == [f"a.parquet:{group}" for group in (0, 0, 1, 1, 2)]


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("s3://AKID:hunter2@pictures/a", id="user and password"),
        pytest.param("s3://pictures/a?secret_key=hunter2", id="secret in the query"),
        pytest.param("s3://hunter2@pictures/a.tar", id="user, archive"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="credentials do not belong into a URL") as told:
        open_source(url)
    assert "hunter2" not in str(told.value)


def test_hiding_credentials_leaves_the_rest_of_a_text() -> None:
    text = "s3://KEY:pw@bucket/a?endpoint_override=x&access_token=abc failed; see https://docs/x"
    hidden = "s3://***@bucket/a?endpoint_override=x&access_token=*** failed; see https://docs/x"
    assert hide_credentials(text) == hidden


def test_a_scheme_that_we_cannot_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="ftp://pictures/a: images are read from a folder or from s3://"):
        open_source("ftp://pictures/a")


def test_a_place_survives_its_spelling() -> None:
    for place in (Place("a@b:1/c.png", "x-1.tar", 512, 0), Place("a.png", "x.parquet", 17)):
        assert parse_place(str(place)) == place
    assert parse_place("photo@home.png") is None


def test_a_picture_decodes_from_every_place(places: Places) -> None:
    expected = load_image(places.folder, "a/002.png", rule=PixelRule("transpose"))
    for root in (places.tar, places.parquet):
        assert (load_image(root, "a/002.png", rule=PixelRule("transpose")) == expected).all()
