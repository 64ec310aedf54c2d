"""A private, real Slurm on this machine: munged, slurmctld and two slurmd on loopback, with a folder of their own."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/state/slurmd.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
ReturnToService=2
SlurmdTimeout=5
InactiveLimit=0
KillWait=2
MinJobAge=300
JobRequeue=1
MaxArraySize=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=2 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=60 DefMemPerCPU=100 State=UP
"""


@contextmanager
def private_slurm(folder: Path) -> Iterator[Path]:
    """The path of `slurm.conf` of a cluster of two nodes of two CPUs whose longest array has five tasks.

    Skips, loudly, where Slurm is not installed and cannot be.
    """
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    _install()
    daemons = _start(folder)
    try:
        _wait_for_nodes(folder)
        yield folder / "slurm.conf"
    finally:
        for pid in [*_pids(folder), *daemons]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def node_daemon(conf: Path, node: str) -> int:
    """The process id of a node's slurmd."""
    return int((conf.parent / f"slurmd.{node}.pid").read_text())


def start_node(conf: Path, node: str) -> None:
    """Start the slurmd of a node, again."""
    _run(["slurmd", "-f", str(conf), "-N", node])


def _install() -> None:
    if all(shutil.which(command) for command in COMMANDS):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip(f"SLURM NOT TESTED: install the packages {' '.join(PACKAGES)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    for command in (install, ["apt-get", "update", "-qq"], install):
        subprocess.run(command, env=environment, capture_output=True, check=False)
        if all(shutil.which(command) for command in COMMANDS):
            return
    pytest.skip(f"SLURM NOT TESTED: apt-get could not install {' '.join(PACKAGES)}")


def _start(folder: Path) -> list[int]:
    for name in ("state", "munge", "state/slurmd.n1", "state/slurmd.n2"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    munge = folder / "munge"
    munge.chmod(0o700)
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o600)
    ports = free_ports(3)
    conf = folder / "slurm.conf"
    user, host = pwd.getpwuid(os.geteuid()).pw_name, socket.gethostname().split(".")[0]
    conf.write_text(
        _CONF.format(host=host, user=user, folder=folder, port=ports[0], port1=ports[1], port2=ports[2]).lstrip()
    )
    os.environ["SLURM_CONF"] = str(conf)
    _run(
        ["munged", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key", f"--pid-file={munge}/munged.pid",
         f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
    )  # fmt: skip
    _run(["slurmctld", "-f", str(conf)])
    for node in ("n1", "n2"):
        start_node(conf, node)
    return [int((munge / "munged.pid").read_text())]


def _pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("slurm*.pid") if path.read_text().strip()]


def _wait_for_nodes(folder: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        answer = subprocess.run(["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], capture_output=True, text=True)
        if answer.stdout.split() == ["n1", "n2"]:
            return
        time.sleep(0.2)
    logs = "\n".join(f"{path}:\n{path.read_text()[-800:]}" for path in folder.glob("slurm*.log"))
    raise RuntimeError(f"the Slurm nodes did not come up\n{logs}")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}{done.stdout}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
