"""`TF_CONFIG` is checked before TensorFlow waits for ever on a wrong one."""

import json

import pytest

from disttrain.tf_config import check_tf_config, workers

pytestmark = pytest.mark.unit

HOSTS = ["one:1", "two:1"]


def config(worker=HOSTS, kind="worker", index=0, **more):
    return json.dumps(
        {"cluster": {"worker": worker, **more}, "task": {"type": kind, "index": index}}
    )


@pytest.mark.parametrize(
    "text",
    [
        config(),
        config(index=1),
        config(index="1"),
        config(["one:1"], kind="chief", chief=["two:1"]),
        config(["one:1"]),
        config(["localhost:1", "localhost:2"]),
    ],
)
def test_a_right_one_passes(text):
    check_tf_config(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("", "needs the environment variable TF_CONFIG"),
        ("{worker", "is not JSON"),
        ("[]", "lacks cluster.worker"),
        ('{"cluster": {}}', "lacks cluster.worker"),
        (json.dumps({"cluster": {"worker": HOSTS}}), "lacks task.type"),
        (json.dumps({"cluster": {"worker": HOSTS}, "task": {"index": 0}}), "lacks task.type"),
        (json.dumps({"cluster": {"worker": HOSTS}, "task": {"type": "worker"}}), "task.index"),
        (config(kind="ps"), "task type 'ps'"),
        (config(index=2), "task index 2, outside of 0 to 1"),
        (config(index=-1), "task index -1"),
        (config(index="x"), "task index 'x'"),
        (config(["one:1", "one:1"]), "twice"),
        (config(["one:1", "localhost:1"]), "names localhost beside other hosts"),
        (config(["127.0.0.1:1"], chief=["two:1"]), "names 127.0.0.1 beside other hosts"),
        (config("one:1"), "lists no hosts"),
    ],
)
def test_a_wrong_one_is_told_what_is_wrong_and_what_a_right_one_looks_like(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_tf_config(text)
    assert '{"cluster": {"worker": ["host1:2222"' in str(caught.value)


def test_workers_are_counted_with_the_chief():
    assert workers(config()) == 2
    assert workers(config(["one:1"], chief=["two:1"])) == 2
    assert workers("{") == workers("[]") == workers('{"cluster": 1}') == 0
