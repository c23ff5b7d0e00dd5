"""Reads and checks `TF_CONFIG`, without TensorFlow."""

import ipaddress
import json

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


def check_tf_config(text):
    """Checks a `TF_CONFIG` before TensorFlow waits for ever on a wrong one.

    Args:
        text: The variable's value, or `None` where it is not set.

    Raises:
        ValueError: It is missing, not JSON, lacks a key, points outside the cluster, or mixes
            `localhost` with other hosts; the message shows the value and what one looks like.
    """

    def wrong(what):
        return ValueError(f"TF_CONFIG {what}; it should look like {_EXAMPLE}, but is {text!r}")

    if not text:
        raise ValueError(
            "replication='multi_worker' needs the environment variable TF_CONFIG in each process, "
            f"such as {_EXAMPLE}"
        )
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise wrong(f"is not JSON ({error})") from error
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not (cluster.get("worker") or cluster.get("chief")):
        raise wrong("lacks cluster.worker, the list of host:port of the workers")
    task = config.get("task")
    for key in ("type", "index"):
        if not isinstance(task, dict) or key not in task:
            raise wrong(f"lacks task.{key}")
    hosts = cluster.get(task["type"])
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise wrong(f"has the task type {task['type']!r}, of which the cluster lists no hosts")
    everyone = [host for job in ("chief", "worker") for host in cluster.get(job, [])]
    if len(set(everyone)) < len(everyone):
        raise wrong("names one host:port twice")
    names = {host.rpartition(":")[0] for host in everyone}
    loopback = sorted(name for name in names if is_loopback(name))
    if loopback and len(loopback) < len(names):
        raise wrong(f"names {loopback[0]} beside other hosts, on each of which it is another one")
    index = str(task["index"])
    if not index.isdecimal() or int(index) >= len(hosts):
        raise wrong(f"has the task index {task['index']!r}, outside of 0 to {len(hosts) - 1}")


def workers(text):
    """Number of processes that a `TF_CONFIG` names; 0 where it cannot be read."""
    try:
        cluster = json.loads(text)["cluster"]
        return sum(len(cluster.get(job, ())) for job in ("chief", "worker"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0


def is_loopback(name):
    """Whether a name or address means "this machine" wherever it is read."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
