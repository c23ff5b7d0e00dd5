"""What the tests of the launch scripts share: a clone of the scripts and machines that lack things.

Nothing here installs, downloads or builds. A clone's `.venv` is made of stand-ins that answer as
pip, Python and Horovod would and write down what they were asked.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests._support.timeouts import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]
TOOLS = """
    awk basename bash cat chmod cp cut date df dirname env flock grep gzip head id ln ls mkdir
    mktemp mv nproc readlink realpath rm sed sh sha256sum sleep sort tail tar tee touch tr uname
"""


def skip_or_fail(reason):
    """Skips the test, or fails it where DISTTRAIN_STRICT=1 allows no skipped test."""
    if os.environ.get("DISTTRAIN_STRICT") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def write_program(path, text, shell="/bin/bash"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shell}\n{text}")
    path.chmod(0o755)
    return path


class Machine:
    """A machine with a PATH, a home and a temporary folder of its own, and a clone of the scripts.

    Attributes:
        root: the clone; its path has a space.
        bin: the only folder on the PATH, with the ordinary tools but no compiler and one Python.
        calls: the file in which stand-ins write what they were asked.
    """

    def __init__(self, folder):
        self.root = folder / "a clone"
        self.bin = folder / "bin"
        self.tmp = folder / "tmp"
        self.calls = folder / "calls"
        self.cache = folder / "home" / ".cache" / "disttrain"
        shutil.copytree(ROOT / "launch", self.root / "launch")
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        for made in (self.bin, self.tmp, folder / "home"):
            made.mkdir()
        self.calls.touch()
        for tool in TOOLS.split():
            found = shutil.which(tool)
            if found:
                (self.bin / tool).symlink_to(found)
        self.program("python3.11", f'exec "{sys.executable}" "$@"')
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(folder / "home"),
            "TMPDIR": str(self.tmp),
            "CUDA_HOME": str(folder / "no cuda"),
            "CALLS": str(self.calls),
        }

    def program(self, name, text):
        return write_program(self.bin / name, text)

    def remove(self, name):
        (self.bin / name).unlink()

    def run(self, script, *args, text=True, **env):
        return subprocess.run(
            [str(self.root / "launch" / script), *args],
            env=self.env | env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=text,
            timeout=TIMEOUT,
        )

    @property
    def venv(self):
        return self.root / ".venv"

    def called(self):
        return self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)
