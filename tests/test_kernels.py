"""The compiled operations: made once, found again, done without where they cannot be had."""

import glob
import os
import pathlib
import stat
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain import kernels
from disttrain.heartbeat import Nobody
from disttrain.kernels import __main__ as command
from disttrain.replication import Topology, resolve
from tensorboard_plugin import metadata
from tests._support.timeouts import TIMEOUT
from tests._support.tiny_models import LABELS, X, batches, sgd, trainer_of

#: A compiler that notes each run, takes its time, and writes what is no library.
COMPILER = """\
#!/bin/sh
echo "$0 $*" >> "{log}"
sleep {seconds}
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""


@pytest.fixture(scope="module")
def operations():
    """The operations, from the cache of the user who runs the tests."""
    if kernels.load() is None:
        pytest.skip("there is no C++ compiler")
    return kernels.load()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no compiler that the environment names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache" / "disttrain" / "kernels"


class Compiler:
    """A program in the place of a C++ compiler."""

    def __init__(self, folder):
        self._log = folder / "runs"
        self.path = folder / "c++"

    def write(self, text=COMPILER, seconds=0):
        self.path.write_text(text.format(log=self._log, seconds=seconds))
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)
        return self

    def runs(self):
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    made = Compiler(tmp_path).write()
    monkeypatch.setenv("CXX", str(made.path))
    return made


def load():
    """`kernels.load`, without what was loaded before."""
    return kernels.load.__wrapped__()


def opening(monkeypatch, *results):
    """Puts results, or errors, in the place of what TensorFlow makes of a library."""
    results, opened = list(results), []

    def open_library(path):
        opened.append(path)
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(tf, "load_op_library", open_library)
    return opened


DAMAGED = tf.errors.NotFoundError(None, None, "invalid ELF header")


# Where it is kept


@pytest.mark.unit
def test_the_cache_is_that_of_the_user(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert kernels.cache_folder() == pathlib.Path("/home/someone/.cache/disttrain/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert kernels.cache_folder() == pathlib.Path("/home/someone/.cache/disttrain/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert kernels.cache_folder() == pathlib.Path("/var/cache/disttrain/kernels")


@pytest.mark.unit
def test_another_source_tensorflow_or_compilation_is_another_file(tmp_path, monkeypatch):
    names = [kernels.library()]
    source = tmp_path / "operations.cc"
    source.write_text(kernels._SOURCE.read_text() + "\n")
    with monkeypatch.context() as changed:
        changed.setattr(kernels, "_SOURCE", source)
        names.append(kernels.library())
    with monkeypatch.context() as changed:
        changed.setattr(tf, "__version__", "2.99.0")
        names.append(kernels.library())
    with monkeypatch.context() as changed:
        changed.setattr(tf.sysconfig, "get_compile_flags", lambda: ["-D_GLIBCXX_USE_CXX11_ABI=0"])
        names.append(kernels.library())
    with monkeypatch.context() as changed:
        changed.setattr(kernels, "_FLAGS", ("-O0",))
        names.append(kernels.library())
    assert len(set(names)) == 5
    assert kernels.library() == names[0]
    assert "2.99.0" in names[2].name


# Compiling


@pytest.mark.processes
def test_it_is_compiled_once_and_found_from_then_on(cache, compiler):
    library = kernels.build()
    assert library == kernels.library()
    assert library.parent == cache
    assert library.read_bytes().startswith(b"made\n")
    assert kernels.build() == library
    (run,) = compiler.runs()
    assert str(kernels._SOURCE) in run
    assert "-I" in run
    assert "-ltensorflow_framework" in run or "libtensorflow_framework" in run


@pytest.mark.processes
def test_nothing_is_left_beside_the_library_but_its_lock(cache, compiler):
    kernels.build()
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".so"]


@pytest.mark.processes
def test_the_compiler_may_come_with_arguments(compiler, monkeypatch):
    monkeypatch.setenv("CXX", f"'{compiler.path}' --one 'two words'")
    kernels.build()
    assert "--one two words" in compiler.runs()[0]


@pytest.mark.processes
def test_without_CXX_a_compiler_is_looked_for(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    kernels.build()
    assert len(compiler.runs()) == 1


@pytest.mark.processes
def test_several_at_once_compile_once(compiler):
    compiler.write(seconds=0.3)
    found = []
    threads = [threading.Thread(target=lambda: found.append(kernels.build())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [kernels.library()] * 3
    assert len(compiler.runs()) == 1


@pytest.mark.processes
def test_several_processes_at_once_compile_once(compiler):
    compiler.write(seconds=0.5)
    program = textwrap.dedent("""
        import sys, types
        tensorflow = types.ModuleType("tensorflow")
        tensorflow.__version__ = "2.0"
        tensorflow.sysconfig = types.SimpleNamespace(
            get_compile_flags=lambda: [], get_link_flags=lambda: [])
        sys.modules["tensorflow"] = tensorflow
        from disttrain import kernels
        print(kernels.build())
    """)
    command = [sys.executable, "-c", program]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate(timeout=TIMEOUT)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(printed) == 1
    assert len(compiler.runs()) == 1


# What can be wrong


def assert_cannot(match):
    """Says why, and `load` makes do without."""
    with pytest.raises(kernels.CannotCompile, match=match):
        kernels.build()
    assert load() is None


@pytest.mark.unit
def test_there_is_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_cannot(r"there is no C\+\+ compiler; install one, such as g\+\+")


@pytest.mark.processes
def test_the_compiler_that_is_named_does_not_exist(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++ -pipe")
    assert_cannot(r"'/nowhere/g\+\+' cannot be run \(No such file.*set CXX to a C\+\+ compiler")


@pytest.mark.processes
def test_the_compiler_fails(compiler):
    compiler.write('#!/bin/sh\necho "tensor.h: no such file \\377" >&2\nexit 1\n')
    assert_cannot(r"c\+\+ failed:\ntensor\.h: no such file")


@pytest.mark.processes
def test_the_compiler_takes_for_ever(compiler, monkeypatch):
    compiler.write("#!/bin/sh\nexec sleep 5\n")
    monkeypatch.setattr(kernels, "_SECONDS", 0.2)
    assert_cannot(r"took more than 0\.2 seconds")


@pytest.mark.unit
def test_the_cache_cannot_be_written(compiler, cache):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder should be")
    assert_cannot(r"cannot be kept \(.*; set XDG_CACHE_HOME to a folder that can be written")


@pytest.mark.unit
def test_the_user_has_no_home(compiler, monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "expanduser", unknown)
    assert_cannot(r"no home directory; set XDG_CACHE_HOME to a folder that can be written")


@pytest.mark.unit
def test_the_source_was_not_installed(compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "_SOURCE", tmp_path / "operations.cc")
    assert_cannot(r"operations\.cc.*install disttrain again")


@pytest.mark.processes
def test_a_library_that_was_cut_short_is_compiled_anew(compiler):
    """Mapped into memory, it would end the process instead of failing."""
    library = kernels.build()
    whole = library.read_bytes()
    for damaged in (whole[:-10], b"", whole[: len(whole) // 2], b"x" + whole[1:]):
        library.write_bytes(damaged)
        assert kernels.build() == library
        assert library.read_bytes() == whole
    assert len(compiler.runs()) == 5


@pytest.mark.processes
def test_a_library_that_cannot_be_loaded_is_compiled_anew_once(compiler, monkeypatch):
    """As one that was made on a host with other system libraries."""
    kernels.build()
    opened = opening(monkeypatch, DAMAGED, "the operations")
    assert load() == "the operations"
    assert opened == [str(kernels.library())] * 2
    assert len(compiler.runs()) == 2


@pytest.mark.processes
def test_what_still_cannot_be_loaded_then_is_done_without(compiler, monkeypatch):
    opening(monkeypatch, DAMAGED, DAMAGED)
    assert load() is None
    assert len(compiler.runs()) == 2


@pytest.mark.processes
def test_a_library_that_cannot_be_loaded_and_not_be_replaced_is_done_without(compiler, monkeypatch):
    kernels.build()
    compiler.write("#!/bin/sh\nexit 1\n")
    opening(monkeypatch, DAMAGED)
    assert load() is None


@pytest.mark.processes
def test_of_many_that_find_it_unusable_one_compiles(compiler):
    library = kernels.build()
    unusable = kernels.identity(library)
    assert kernels.build(unusable) == kernels.build(unusable) == library
    assert len(compiler.runs()) == 2


# The command


@pytest.mark.processes
def test_the_command_says_where_the_library_is(compiler, monkeypatch, capsys):
    opening(monkeypatch, "the operations")
    assert command.main() == 0
    assert capsys.readouterr().out == f"compiled: {kernels.library()}\n"


@pytest.mark.unit
def test_the_command_says_what_is_wrong(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "cannot be compiled: there is no C++ compiler" in printed.err


@pytest.mark.processes
def test_the_command_says_what_cannot_be_loaded(compiler, capsys):
    """With TensorFlow's own loading of what is no library."""
    assert command.main() == 1
    assert "cannot be loaded" in capsys.readouterr().err


# The set-up compiles with the same command; how damage is found is tested above.
@pytest.mark.exhaustive
@pytest.mark.processes
def test_the_command_compiles_and_replaces_what_is_damaged(operations):
    library = kernels.library()
    library.parent.mkdir(parents=True)
    library.write_bytes(b"\x7fELF" + bytes(5000))
    done = subprocess.run(
        [sys.executable, "-m", "disttrain.kernels"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stdout == f"compiled: {library}\n", done.stderr
    assert done.returncode == 0
    assert library.stat().st_size > 10_000


# Training without


def recorded(logdir):
    """Tag to the records of a run, stacked."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found = {}
    for path in glob.glob(f"{logdir}/events.*"):
        for event in EventFileLoader(path).Load():
            for value in event.summary.value:
                array = tensor_util.make_ndarray(value.tensor)
                found.setdefault(value.tag, []).append((event.step, array))
    return found


def train(logdir):
    trainer = trainer_of(
        optimizer=sgd(momentum=0.9),
        telemetry=disttrain.Telemetry(every=1, histograms_every=2),
        clip=disttrain.ClipByGlobalNorm(0.1),
        logdir=str(logdir),
    )
    trainer.fit(batches(X, LABELS), epochs=2, verbose=0)
    return trainer, recorded(logdir)


@pytest.mark.processes
def test_training_without_them_records_the_same(operations, tmp_path, monkeypatch):
    trainer, expected = train(tmp_path / "with")
    monkeypatch.setattr(kernels, "load", lambda: None)
    without, found = train(tmp_path / "without")
    for one, other in zip(trainer.model.get_weights(), without.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for tag in ("disttrain/layers/0", "disttrain/histograms/0"):
        assert [step for step, _ in found[tag]] == [step for step, _ in expected[tag]]
        for (_, one), (_, other) in zip(found[tag], expected[tag], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert len(found["disttrain/layers/0"]) == 6
    for tag, columns in (
        ("disttrain/steps/0", metadata.STEP_QUANTITIES),
        ("disttrain/replicas/0", metadata.REPLICA_QUANTITIES),
    ):
        kept = [s.name not in ("step_seconds", "examples_per_second") for s in columns]
        for (_, one), (_, other) in zip(found[tag], expected[tag], strict=True):
            np.testing.assert_allclose(one[..., kept], other[..., kept], rtol=1e-5)


# Several processes


class Processes:
    """A replication of two processes, of which the other one has its own answer."""

    topology = Topology(processes=2)
    pulse = Nobody()

    def __init__(self, other):
        self._other = other

    def any(self, flag):
        return flag or self._other


@pytest.mark.unit
@pytest.mark.parametrize(("own", "others_lack", "used"), [(1, 0, 1), (1, 1, 0), (0, 0, 0)])
def test_processes_use_them_together_or_not_at_all(own, others_lack, used, monkeypatch):
    operations = object() if own else None
    monkeypatch.setattr(kernels, "load", lambda: operations)
    monkeypatch.setattr(kernels, "_without", False)
    kernels.agree(Processes(bool(others_lack)))
    assert (kernels.available() is operations is not None) == bool(used)


@pytest.mark.unit
def test_a_single_process_asks_nobody(monkeypatch):
    monkeypatch.setattr(kernels, "load", lambda: pytest.fail("asked for too early"))
    kernels.agree(resolve("single"))


# Processors


@pytest.mark.processes
def test_registers_of_all_sizes_give_the_same_bits(tmp_path):
    program = tmp_path / "registers"
    folder = tf.sysconfig.get_lib()
    command = [
        *("c++", "-O1", "-w", "-std=c++17", "-fno-math-errno", "-ffp-contract=off"),
        *("-I", str(pathlib.Path(kernels.__file__).parent)),
        *(str(pathlib.Path(__file__).with_name("registers.cc")), "-o", str(program)),
        *tf.sysconfig.get_compile_flags(),
        *tf.sysconfig.get_link_flags(),
        *("-l:libtensorflow_cc.so.2", f"-Wl,-rpath,{folder}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    # 18 rules with and without being measured, 6 sizes, decayed or not, and the sums of 7 sizes.
    assert done.stdout == f"{2 * (18 * 2 * 6 * 2 + 7 * 2)} compared\n"
