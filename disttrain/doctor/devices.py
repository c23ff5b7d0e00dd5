"""GPUs, their driver, whether TensorFlow and Horovod use them, and oneDNN where there are none."""

import subprocess

from disttrain.doctor.findings import Finding


def check(probe):
    """Makes findings of what the driver and `probe` tell about GPUs."""
    if "failed" in probe or "tensorflow" in probe["broken"]:
        return
    installed = _nvidia_smi()
    seen = probe["gpus"]
    if not installed:
        yield Finding("GPUs", "ok", "none; training runs on the CPU")
        if probe["onednn"] is False:
            yield Finding(
                "oneDNN",
                "note",
                "TensorFlow leaves it off on processors without instructions such as AVX-512 VNNI; "
                "with it training is often faster, and rounds otherwise",
                "export TF_ENABLE_ONEDNN_OPTS=1 on all hosts",
            )
        return
    driver, names = installed
    if len(seen) < len(names):
        yield Finding(
            "GPUs",
            "warning",
            f"the driver {driver} has {len(names)} ({', '.join(names)}) and TensorFlow sees "
            f"{len(seen)}",
            'pip install "tensorflow[and-cuda]>=2.21,<2.22"; unset CUDA_VISIBLE_DEVICES',
        )
    else:
        yield Finding("GPUs", "ok", f"{', '.join(seen)}; driver {driver}, CUDA {probe['cuda']}")
    if "horovod" not in probe:
        return
    if probe["horovod"]["nccl"]:
        yield Finding("NCCL", "ok", "Horovod was built with it")
    else:
        yield Finding(
            "NCCL",
            "warning",
            "Horovod was built without it, so gradients travel through the CPU",
            "install nvcc of TensorFlow's CUDA, then rm -r .venv && ./launch/setup.sh",
        )


def _nvidia_smi():
    """`(driver, names of the GPUs)`, or `None` without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [line.split(", ", 1) for line in done.stdout.splitlines() if ", " in line]
    if done.returncode or not rows:
        return None
    return rows[0][0], [name for _, name in rows]
