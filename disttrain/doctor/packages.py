"""Are the packages here, of versions that go together, and do they load?"""

from disttrain.doctor.findings import Finding

#: Name to the versions that disttrain is tested with, and whether training fails without it.
_WANTED = {
    "tensorflow": (">=2.21,<2.22", (2, 21), True),
    "keras": (">=3.12,<4", (3,), True),
    "tensorboard": (">=2.21,<2.22", (2, 21), False),
}

_BUILD = "./launch/setup.sh"


def check(probe):
    """Makes findings of what `probe` has told about packages."""
    if "failed" in probe:
        yield Finding(
            "Python", "error", f"the packages cannot be looked at: {probe['failed']}", _BUILD
        )
        return
    yield _python(probe["python"])
    broken = probe["broken"]
    for name, (wanted, begin, needed) in _WANTED.items():
        yield _package(name, probe["versions"][name], broken.get(name), wanted, begin, needed)
    yield from _horovod(probe, broken.get("horovod"))
    yield _addons(probe["versions"]["tensorflow-addons"], broken.get("tensorflow-addons"))
    yield _disttrain(probe, broken.get("disttrain"))


def _python(version):
    if version.startswith(("3.10.", "3.11.")):
        return Finding("Python", "ok", version)
    return Finding(
        "Python",
        "error",
        f"{version}, and Horovod's launcher and TensorFlow Addons need 3.10 or 3.11",
        "PYTHON=python3.11 ./launch/setup.sh",
    )


def _package(name, version, broken, wanted, begin, needed):
    subject = {"tensorflow": "TensorFlow", "tensorboard": "TensorBoard"}.get(name, name.title())
    bad = "error" if needed else "warning"
    mend = f'pip install "{name}{wanted}"'
    if version is None:
        return Finding(subject, bad, "not installed", mend)
    if broken:
        return Finding(subject, bad, f"{version} does not load ({broken})", mend)
    if tuple(int(part) for part in version.split(".")[: len(begin)]) != begin:
        return Finding(subject, bad, f"{version}, and disttrain needs {wanted}", mend)
    return Finding(subject, "ok", version)


def _horovod(probe, broken):
    version = probe["versions"]["horovod"]
    if version is None:
        yield Finding(
            "Horovod", "note", "not installed; the other replications do without it", _BUILD
        )
        return
    if broken:
        yield Finding(
            "Horovod",
            "error",
            f"{version} does not load ({broken}); it was built for another TensorFlow",
            _BUILD,
        )
        return
    built = probe["horovod"]
    controllers = [name for name in ("gloo", "mpi") if built[name]]
    operations = [name for name in ("nccl", "ddl", "ccl", "mpi", "gloo") if built[name]]
    yield Finding(
        "Horovod",
        "ok" if controllers else "error",
        f"{version}; controllers {_names(controllers)}; operations {_names(operations)}",
        None if controllers else _BUILD,
    )


def _names(names):
    proper = {"gloo": "Gloo"}
    return ", ".join(proper.get(name, name.upper()) for name in names) or "none"


def _addons(version, broken):
    subject = "Addons"
    if version is None:
        return Finding(subject, "note", "not installed", 'pip install "disttrain[addons]"')
    if broken:
        return Finding(
            subject,
            "warning",
            f"{version} is installed and from_addons fails ({broken})",
            'pip install "disttrain[addons]"',
        )
    return Finding(subject, "ok", version)


def _disttrain(probe, broken):
    if broken:
        return Finding("disttrain", "error", f"does not load ({broken})", "pip install -e .")
    compiled = probe["compiled"]
    return Finding(
        "disttrain",
        "ok" if compiled else "note",
        probe["code"] + ("; operations compiled" if compiled else "; operations not compiled"),
        None if compiled else "python -m disttrain.kernels",
    )
