"""A real S3 server, a proxy that counts and breaks what comes from it, and the same images in every kind of place."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from breaking_proxy import BreakingProxy
from made_archives import KEY_ID, NAMES, SECRET, Places, noise_picture, write_parquet, write_tar


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of moto's S3 server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(port, server)
        yield port
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert server.poll() is None, "moto's server ended"
            time.sleep(0.05)
        else:
            return
    raise AssertionError("moto's server does not answer")


@pytest.fixture(scope="session")
def bucket(s3_port: int, places: Places) -> Any:
    """boto3's client of the server, whose bucket `pictures` holds all places."""
    import boto3

    client = boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket="pictures")
    for folder, prefix in (
        (places.folder, "folder"),
        (Path(places.tar).parent, "shards"),
        (Path(places.parquet).parent, "data"),
    ):
        for path in sorted(folder.rglob("*.*")):
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket="pictures", Key=key, Body=path.read_bytes())
    return client


@pytest.fixture
def proxy(s3_port: int) -> Iterator[BreakingProxy]:
    with BreakingProxy(s3_port) as proxy:
        yield proxy


@pytest.fixture
def s3(bucket: Any, proxy: BreakingProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The filled bucket's client; the environment points all others at the proxy before the server."""
    from pseudolabel import sources

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setattr("pseudolabel.sources.store.FIRST_WAIT_S", 0.01)
    sources._open.cache_clear()
    yield bucket
    sources._open.cache_clear()


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    root = tmp_path_factory.mktemp("places")
    pictures = {name: noise_picture(number) for number, name in enumerate(NAMES)}
    for name, data in pictures.items():
        path = root / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    halves = (NAMES[:6], NAMES[6:])
    for place, names in enumerate(halves):
        write_tar(root / "shards" / f"train-{place:03d}.tar", {name: pictures[name] for name in names})
        write_parquet(root / "data" / f"train-{place}.parquet", {name: pictures[name] for name in names})
    tar, parquet = root / "shards" / "train-{000..001}.tar", root / "data" / "train-*.parquet"
    return Places(root / "folder", str(tar), str(parquet), pictures)
