"""What TensorBoard imports: light, without TensorFlow, and keeping every record."""

import argparse
import importlib.metadata
import subprocess
import sys

import pytest

from tensorboard_plugin import loader, metadata
from tests._support.timeouts import TIMEOUT

_REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "disttrain"):
            raise AssertionError("imported " + name)

sys.meta_path.insert(0, Refuse())
"""


def _python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


@pytest.mark.processes
@pytest.mark.parametrize("module", ["tensorboard_plugin.loader", "tensorboard_plugin.plugin"])
def test_it_imports_without_tensorflow(module):
    done = _python(f"{_REFUSE}import {module}; print('tensorflow' in sys.modules)")
    assert done.stderr == ""
    assert done.stdout == "False\n"


@pytest.mark.processes
def test_the_loader_leaves_the_rest_for_later():
    done = _python(
        "import sys, tensorboard_plugin.loader as l;"
        "print(sorted({'numpy', 'werkzeug', 'tensorboard_plugin.plugin'} & set(sys.modules)))"
    )
    assert done.stdout == "[]\n"


@pytest.mark.unit
def test_every_record_is_kept():
    flags = argparse.Namespace(samples_per_plugin={"scalars": 5})
    loader.Loader().fix_flags(flags)
    assert flags.samples_per_plugin == {"scalars": 5, metadata.PLUGIN_NAME: 0}


@pytest.mark.unit
def test_what_the_person_asked_for_stays():
    flags = argparse.Namespace(samples_per_plugin={metadata.PLUGIN_NAME: 50})
    loader.Loader().fix_flags(flags)
    assert flags.samples_per_plugin == {metadata.PLUGIN_NAME: 50}


@pytest.mark.unit
def test_without_a_data_provider_there_is_no_plugin():
    assert loader.Loader().load(argparse.Namespace(data_provider=None)) is None


@pytest.mark.unit
def test_the_entry_point_names_the_loader():
    points = importlib.metadata.entry_points(group="tensorboard_plugins", name="disttrain")
    assert [point.load() for point in points] == [loader.Loader]
