"""launch/hosts.sh on real hosts: network namespaces, each with its own address and ssh server."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests._support.timeouts import TIMEOUT
from tests.checkpoints.test_elastic import told
from tests.launch.conftest import ROOT
from tests.launch.namespaces import cluster, three_hosts
from tests.launch.programs import left, patient, program, wait_for

pytestmark = pytest.mark.processes

__all__ = ["cluster", "program"]

HOSTS = ROOT / "launch" / "hosts.sh"

#: Of the elastic run, 11 steps each.
EPOCHS = 6


@pytest.fixture
def folder(cluster, program):
    """A folder with a space in its name that all hosts share, with the program in it."""
    return program.parent


def launch(cluster, folder, *arguments, timeout=TIMEOUT, script=HOSTS):
    return subprocess.run(
        cluster.command(0, script, *arguments),
        env=cluster.environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_two_hosts_find_their_network_and_get_every_argument(cluster, folder):
    arguments = ["a b", 'it\'s "x" $HOME *', ""]
    hosts = f"{cluster.names[0]}:2,{cluster.names[1]}:1"
    done = launch(cluster, folder, "-H", hosts, "the program.py", "write", *arguments)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"rank {i}").read_text()) for i in range(3)]
    assert all(rank["arguments"] == arguments for rank in ranks)
    assert all(rank["folder"] == str(folder) for rank in ranks)
    assert [rank["environment"]["HOROVOD_HOSTNAME"] for rank in ranks] == [
        cluster.names[0],
        cluster.names[0],
        cluster.names[1],
    ]
    assert [rank["address"] for rank in ranks] == [*cluster.names[:1] * 2, cluster.names[1]]
    assert {rank["environment"]["HOROVOD_GLOO_IFACE"] for rank in ranks} == {"eth0"}


@pytest.mark.exhaustive
def test_three_hosts_of_a_hostfile_reduce(cluster, folder):
    lines = [
        f"{cluster.names[0]} slots=1",
        "# a comment",
        f"{cluster.names[1]}:1",
        cluster.names[2],
    ]
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    options = ["--hostfile", "hosts", "--network-interfaces", "eth0"]
    done = launch(cluster, folder, *options, "the program.py", "reduce", timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    assert "the sum is 3.0" in done.stdout


def test_the_error_of_the_host_that_fails_comes_last_and_once(cluster, folder):
    hosts = f"{cluster.names[0]}:1,{cluster.names[1]}:1"
    options = ["-H", hosts, "--network-interfaces", "eth0"]
    done = launch(cluster, folder, *options, "the program.py", "fail", "1", "7")
    assert done.returncode == 7
    assert done.stderr.count("ValueError: rank 1 is bad") == 1
    *_, said, last = done.stderr.splitlines()
    assert said == "ValueError: rank 1 is bad"
    assert f"failed in rank 1 on {cluster.names[1]} with status 7" in last


def test_a_host_that_ssh_does_not_reach_is_named(cluster, folder):
    with cluster.cut_off(1):
        hosts = f"{cluster.names[0]}:1,{cluster.names[1]}:1"
        done = launch(cluster, folder, "-H", hosts, "the program.py", "write")
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"disttrain: ssh does not reach all hosts ({cluster.names[1]}: ssh: ")
    assert f"disttrain doctor -H {hosts}" in said
    assert not (folder / "rank 0").exists()


def start(cluster, folder, hosts, *arguments, until, **environment):
    """A job on two hosts; returns once the first rank has said so."""
    running = subprocess.Popen(
        cluster.command(0, HOSTS, "-H", hosts, "--network-interfaces", "eth0", *arguments),
        env=cluster.environment(**environment),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in running.stdout:
        if until in line:
            return running
    pytest.fail(f"ended too early: {running.stderr.read()}")


def test_a_host_that_is_cut_off_in_mid_run_is_named_and_all_end(cluster, folder):
    hosts = ",".join(f"{name}:1" for name in cluster.names[:2])
    program = ["--gloo-timeout-seconds", "3", "the program.py", "loop"]
    running = start(cluster, folder, hosts, *program, until="reduced")
    with cluster.cut_off(1):
        _, errors = running.communicate(timeout=TIMEOUT)
        assert running.returncode not in (0, 130)
        assert f"lost its partners: {cluster.names[1]} does not answer" in errors.splitlines()[-1]
    # The other host learns of it by its own time limit.
    assert not left(folder)


@pytest.mark.parametrize("what", ["sleep", pytest.param("stubborn", marks=pytest.mark.exhaustive)])
def test_ctrl_c_ends_the_ranks_of_all_hosts(cluster, folder, tmp_path, what):
    """Though ssh tells the other host nothing, and a rank does not mind SIGTERM."""
    hosts = ",".join(f"{name}:1" for name in cluster.names[:2])
    # Only a stubborn rank has to be killed.
    environment = patient(tmp_path) if what == "sleep" else {}
    running = start(cluster, folder, hosts, "the program.py", what, until="sleeping", **environment)
    wait_for(folder, "began *", 2)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=TIMEOUT)
    assert running.returncode == 130
    assert errors.splitlines()[-1].startswith("disttrain: stopped by Ctrl-C")
    assert not left(folder)


def join_and_leave(folder):
    """What an elastic run has told that got a third host and lost it again.

    Returns:
        What its ranks have told, and the names of the hosts.
    """
    (folder / "cluster").mkdir()
    with three_hosts(folder / "cluster") as cluster:
        return _join_and_leave(cluster, folder), cluster.names


def _join_and_leave(cluster, folder):
    hosts = folder / "hosts"

    def set_hosts(count):
        new = hosts.with_suffix(".new")
        new.write_text("".join(f"{name}:1\n" for name in cluster.names[:count]))
        new.replace(hosts)

    def has(**wanted):
        return any(wanted.items() <= line.items() for line in told(folder))

    set_hosts(2)
    options = ["--min-np", "2", "--max-np", "3", "--hosts", "file", hosts]
    options += ["--network-interfaces", "eth0"]
    program = ["-m", "tests.checkpoints.elastic_program", folder, str(EPOCHS), "0.2"]
    running = subprocess.Popen(
        cluster.command(0, HOSTS.with_name("elastic.sh"), *options, *program),
        env=cluster.environment(PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(running, lambda: has(step=5))
        set_hosts(3)
        wait_until(running, lambda: has(size=3))
        set_hosts(2)
        output, _ = running.communicate(timeout=TIMEOUT)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, output[-3000:]
    assert not left(folder)
    return told(folder)


@pytest.mark.background_job.with_args(join_and_leave)
@pytest.mark.exhaustive
def test_a_host_joins_an_elastic_run_and_leaves_it(background_job):
    lines, names = background_job
    assert {line["host"] for line in lines if line["size"] == 3} == set(names)
    first = [line for line in lines if line["rank"] == 0]
    # No step is lost, and none is made twice.
    assert [line["step"] for line in first] == list(range(1, 11 * EPOCHS + 1))
    assert [size for size, _ in itertools.groupby(line["size"] for line in first)] == [2, 3, 2]


def wait_until(running, holds, seconds=TIMEOUT):
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until or running.poll() is not None:
            running.kill()
            pytest.fail(f"it did not come to that: {running.communicate()[0][-3000:]}")
        time.sleep(0.1)


# The same hosts for the others.


def test_workers_on_two_hosts_have_tf_config(cluster, folder):
    hosts = f"{cluster.names[0]}:1,{cluster.names[1]}:2"
    arguments = ["-H", hosts, "--port", "4000", "the program.py"]
    script = ROOT / "launch" / "multi_worker.sh"
    done = launch(cluster, folder, *arguments, "write", "a b", "it's", script=script)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"rank {i}").read_text()) for i in range(3)]
    assert [rank["address"] for rank in ranks] == [cluster.names[0], *cluster.names[1:2] * 2]
    assert all(rank["arguments"] == ["a b", "it's"] for rank in ranks)
    assert all(rank["folder"] == str(folder) for rank in ranks)
    config = json.loads(ranks[2]["environment"]["TF_CONFIG"])
    one, two = cluster.names[:2]
    assert config["cluster"]["worker"] == [f"{one}:4000", f"{two}:4000", f"{two}:4001"]
    done = launch(cluster, folder, *arguments, "fail", "2", "7", script=script)
    assert done.returncode == 7
    assert f"failed in rank 2 on {two} with status 7" in done.stderr.splitlines()[-1]
    assert not left(folder)


@pytest.mark.exhaustive
def test_the_doctor_looks_at_hosts(cluster, folder):
    command = [os.path.join(os.path.dirname(sys.executable), "disttrain"), "doctor", "--json"]
    hosts = ",".join(f"{name}:1" for name in cluster.names)
    with cluster.cut_off(2):
        done = cluster.on(0, *command, "-H", hosts, "--seconds", "150")
    found = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    one, two, three = cluster.names
    assert found[f"Host {one}"]["level"] == "ok", found[f"Host {one}"]
    assert found[f"Host {two}"]["level"] == "ok", found[f"Host {two}"]
    assert found[f"Host {three}"]["level"] == "error"
    assert "ssh does not reach it" in found[f"Host {three}"]["message"]
    assert found["Reduction"]["message"].startswith(
        f"two processes on {one} and {two} have reduced"
    )
    assert done.returncode == 1
