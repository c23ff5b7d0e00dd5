"""launch/mpijob.yaml against the fields that the MPI operator publishes, and its Containerfile."""

import copy
import json
import re
import subprocess

import pytest

from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

SCHEMA = json.loads((ROOT / "tests/launch/data/mpijob-v2beta1.schema.json").read_text())
JOB = yaml.safe_load((ROOT / "launch" / "mpijob.yaml").read_text())


def check(job):
    jsonschema.Draft202012Validator(SCHEMA).validate(job)


@pytest.mark.unit
def test_the_job_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check(JOB)


def spec(job):
    return job["spec"]["mpiReplicaSpecs"]


@pytest.mark.unit
@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job.update(apiVersion="kubeflow.org/v1"),
        lambda job: job["spec"].update(slotsPerWorker="2"),
        lambda job: job["spec"].update(slots=2),
        lambda job: job["spec"]["runPolicy"].update(cleanPodPolicy="Some"),
        lambda job: spec(job).pop("Launcher"),
        lambda job: spec(job).update(Workers=spec(job)["Worker"]),
        lambda job: spec(job)["Worker"].update(replicas="2"),
        lambda job: spec(job)["Worker"]["template"]["spec"].pop("containers"),
        lambda job: spec(job)["Worker"]["template"]["spec"]["containers"][0].pop("name"),
        lambda job: spec(job)["Worker"]["template"]["spec"]["containers"][0].update(arguments=[]),
        lambda job: spec(job)["Launcher"]["template"]["spec"]["containers"][0]["args"].append(5),
    ],
)
def test_a_wrong_job_is_not(spoil):
    job = copy.deepcopy(JOB)
    spoil(job)
    with pytest.raises(jsonschema.ValidationError):
        check(job)


@pytest.mark.processes
def test_the_launcher_runs_what_hosts_sh_understands(tmp_path):
    (container,) = spec(JOB)["Launcher"]["template"]["spec"]["containers"]
    assert container["command"] == ["/opt/disttrain/launch/hosts.sh"]
    arguments = container["args"]
    # As the operator writes it for Open MPI.
    hostfile = tmp_path / "hostfile"
    names = [f"disttrain-worker-{i}.disttrain.default.svc" for i in range(2)]
    hostfile.write_text("".join(f"{name} slots=1\n" for name in names))
    arguments[arguments.index("/etc/mpi/hostfile")] = str(hostfile)
    done = subprocess.run(
        [ROOT / "launch" / "hosts.sh", "--dry-run", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert rf"-np 2 -H {names[0]}:1\,{names[1]}:1" in done.stdout


@pytest.mark.unit
def test_launcher_and_workers_have_one_image_and_room_for_the_runs():
    containers = [spec(JOB)[kind]["template"]["spec"]["containers"][0] for kind in spec(JOB)]
    assert len({container["image"] for container in containers}) == 1
    arguments = containers[0]["args"]
    logdir = arguments[arguments.index("--logdir") + 1]
    mounts = {mount["mountPath"]: mount["name"] for mount in containers[1]["volumeMounts"]}
    volumes = spec(JOB)["Worker"]["template"]["spec"]["volumes"]
    assert mounts["/" + logdir.split("/")[1]] in {volume["name"] for volume in volumes}


@pytest.mark.unit
def test_the_containerfile_holds_what_the_job_takes_for_granted():
    lines = (ROOT / "launch" / "Containerfile").read_text().replace("\\\n", "").splitlines()
    steps = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    assert {name for name, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV"}
    text = "\n".join(rest for _, rest in steps)
    (container,) = spec(JOB)["Launcher"]["template"]["spec"]["containers"]
    assert container["command"][0].startswith(re.search(r"^(/\S+)$", text, re.MULTILINE)[1])
    for needed in (
        "openssh-server",
        "openssh-client",
        "g++",
        "./launch/setup.sh",
        "StrictModes no",
    ):
        assert needed in text
