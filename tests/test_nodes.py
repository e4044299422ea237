"""Ranks that die, on one machine and on two: the job ends in a line or starts again, and comes to the same numbers.

"Two machines" are two network namespaces that see each other only through a veth pair. All runs are sharded, which has
every rank take part in everything, checkpoints included.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_train import SCRIPT, SHORT, numbers, weights

from conftest import ROOT
from minidrpo.rundir import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
FLAGS = [*SHORT, "--shard", "--steps=3", "--eval-every=3", "--show-every=3", "--max-response-tokens=32"]
PATIENCE = 900  # seconds for what takes 20 on an idle machine


def start(folder, *launch, namespace=None, output=subprocess.PIPE, **environment):
    inside = ["ip", "netns", "exec", namespace] if namespace else []  # execs: the process is torchrun itself
    return subprocess.Popen(
        [*inside, *TORCHRUN, *launch, SCRIPT, *FLAGS, f"--run-dir={folder}"],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )


def ranks_of(torchrun):
    """{rank: process id} of the training processes that `torchrun` has started."""
    found = {}
    for pid in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split():
        try:
            variables = dict(v.split("=", 1) for v in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in v)
        except OSError:  # it has just ended
            continue
        if "LOCAL_RANK" in variables:
            found[int(variables["RANK"])] = int(pid)
    return found


@contextlib.contextmanager
def ended_at_last(*agents):
    """Whatever happens inside, nothing goes on running after it."""
    try:
        yield
    finally:
        for agent in agents:
            if agent.poll() is None:
                for pid in ranks_of(agent).values():
                    os.kill(pid, signal.SIGKILL)
                agent.kill()
                agent.wait()


def wait_for(happened, *processes):
    deadline = time.time() + PATIENCE
    while not happened():
        assert time.time() < deadline and all(p.poll() is None for p in processes), "ended or stuck too early"
        time.sleep(0.02)


def killed_in_the_middle(folder, torchrun, *others, which=0):
    """SIGKILL to one of the ranks under `torchrun`, the first or the second, once there is a checkpoint."""
    wait_for(lambda: checkpoint.list_steps(folder), torchrun, *others)
    ranks = ranks_of(torchrun)
    os.kill(ranks[sorted(ranks)[which]], signal.SIGKILL)


def same(folder, undisturbed):
    assert weights(folder) == weights(undisturbed)
    for name in ("metrics.jsonl", "evals.jsonl", "samples.jsonl"):
        assert numbers(folder, name) == numbers(undisturbed, name), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, "--nproc_per_node=2")
    with ended_at_last(process):
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said[-3000:]
    return folder


@pytest.mark.parametrize("rank", [0, 1])  # rank 0 writes the checkpoints
def test_a_rank_dies(undisturbed, tmp_path, rank):
    """One is killed: torchrun says so and ends the other (which may be first to say so), and the same command goes
    on."""
    process = start(tmp_path, "--nproc_per_node=2")
    with ended_at_last(process):
        killed_in_the_middle(tmp_path, process, which=rank)
        said, _ = process.communicate(timeout=PATIENCE)
    lines, other = [x for x in said.splitlines() if x.startswith("error")], ["error (rank 1)", "error"][rank]
    assert process.returncode and "Signal 9 (SIGKILL)" in said and said.count("Traceback") == 1, said  # torchrun's own
    gone = rf"{re.escape(other)}: rank {rank} \(process \d+\) is gone; the same command goes on from"
    assert not lines or len(lines) == 1 and re.match(gone, lines[0]), said
    again = start(tmp_path, "--nproc_per_node=2")
    with ended_at_last(again):
        said, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0 and "going on from step" in said, said[-3000:]
    same(tmp_path, undisturbed)


def test_ranks_that_see_different_runs_say_so(undisturbed, tmp_path):
    """A directory that is not shared: rank 0 sees a finished run, rank 1 none."""
    script = f"""import config, sys
from minidrpo import setup
from minidrpo.engine.distributed import init_distributed, shutdown
ctx = init_distributed()
with shutdown(ctx):
    setup.start(config.parse({FLAGS} + ["--run-dir=" + sys.argv[1 + ctx.rank]], "train.py", ""), ctx)
"""
    (tmp_path / "script.py").write_text(script)
    command = [*TORCHRUN, "--nproc_per_node=2", tmp_path / "script.py", undisturbed, tmp_path / "own"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode and "must be on a disk all nodes share" in done.stderr, done.stderr[-2000:]
    assert done.stderr.count("Traceback") == 1, "torchrun's own"


@pytest.fixture
def two_hosts():
    """(names, addresses, interface) of two network namespaces joined by a veth pair."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the ip command")
    hosts = [f"drpo{os.getpid()}{side}" for side in "ab"]
    ends, addresses = ["veth0", "veth0"], ["10.213.7.1", "10.213.7.2"]

    def ip(command):
        return subprocess.run(["ip", *command.split()], capture_output=True, text=True)

    try:
        for host in hosts:
            made = ip(f"netns add {host}")
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
        made = ip(f"link add {ends[0]} netns {hosts[0]} type veth peer name {ends[1]} netns {hosts[1]}")
        if made.returncode:
            pytest.skip(f"no veth pairs here: {made.stderr.strip()}")
        for host, end, address in zip(hosts, ends, addresses, strict=True):
            for command in (f"addr add {address}/24 dev {end}", f"link set {end} up", "link set lo up"):
                assert ip(f"-n {host} {command}").returncode == 0
        yield hosts, addresses, ends[0]
    finally:
        for host in hosts:
            ip(f"netns del {host}")  # and with it its end of the pair


def test_two_hosts_and_a_rank_dies(undisturbed, two_hosts, tmp_path):
    """torchrun on both, rendezvous over the link; one rank is killed, torchrun starts both anew, they go on."""
    hosts, addresses, interface = two_hosts
    settings = {"GLOO_SOCKET_IFNAME": interface, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # docs/nodes.md says why
    folder, logs = tmp_path / "run", [open(tmp_path / f"{host}.log", "w+") for host in hosts]
    agents = [
        start(
            folder,
            "--nnodes=2",
            "--nproc_per_node=1",
            "--max-restarts=1",
            "--rdzv-backend=c10d",
            "--rdzv-id=test",
            f"--rdzv-endpoint={addresses[0]}:29411",
            f"--rdzv-conf=is_host={int(host == hosts[0])}",
            f"--local-addr={address}",
            namespace=host,
            output=log,
            **settings,
        )
        for host, address, log in zip(hosts, addresses, logs, strict=True)
    ]
    with ended_at_last(*agents):
        killed_in_the_middle(folder, agents[1], agents[0])
        for agent in agents:
            agent.wait(timeout=PATIENCE)
    said = ""
    for log in logs:
        log.seek(0)
        said += log.read()
        log.close()
    assert [agent.returncode for agent in agents] == [0, 0], said[-3000:]
    assert "going on from step" in said, said[-3000:]
    same(folder, undisturbed)
