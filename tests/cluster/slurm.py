"""SLURM on this machine alone: a controller and some nodes, all on loopback, their state in one folder.

It needs root and Debian's packages: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
# Neither cgroups nor accounts: what a container has not.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
CommunicationParameters=NoAddrCache
ReturnToService=2
KillWait=20
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000 State=UNKNOWN\n"


class Slurm:
    """A cluster that is there as long as this is entered; its commands need `environment`."""

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
            raise FileNotFoundError(f"{', '.join(missing)}: {__doc__.splitlines()[-1]}")
        self.folder, self.nodes = folder, [f"n{k + 1}" for k in range(nodes)]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Slurm":
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)  # munge asks for it
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        host, ports = socket.gethostname().partition(".")[0], _free_ports(1 + len(self.nodes))
        text = CONF.format(host=host, port=ports[0], folder=self.folder)
        text += "".join(NODE.format(name=n, host=host, port=p) for n, p in zip(self.nodes, ports[1:], strict=True))
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (self.folder / "state").mkdir()
        munge = {
            "socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log",
            "seed-file": "munge.seed",
        }  # fmt: skip
        self("munged", "--force", *(f"--{name}={self.folder / file}" for name, file in munge.items()))
        self("slurmctld")
        for name in self.nodes:
            (self.folder / f"spool_{name}").mkdir()
            self("slurmd", "-N", name)
        until = time.monotonic() + 30
        while self("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split() != self.nodes:
            assert time.monotonic() < until, self("sinfo") + (self.folder / "slurmctld.log").read_text()
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        for file in (*self.folder.glob("slurm*.pid"), self.folder / "munged.pid"):
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGTERM)

    def __call__(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def queue(self) -> dict[str, str]:
        """The state of each job that is not over, by id."""
        lines = self("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def clear(self) -> None:
        """End all jobs."""
        while self.queue():
            self("scancel", "--user=root", "--state=PENDING")
            self("scancel", "--user=root", "--signal=KILL", "--full")
            time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
