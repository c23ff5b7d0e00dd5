"""Takes a picture of the plugin's page: `python -m tests.plugin.screenshot LOGDIR OUT.png`.

It starts TensorBoard on the log directory, opens the plugin's tab in a headless Chromium, waits
until the page is ready and saves what it shows. With `--readme` it trains what `README.md` shows on
two Horovod processes, in about a minute, and saves that picture.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

#: The first that is there; the shell draws the same pages in two thirds of the time.
CHROMIUM = next(
    (path for path in ("/usr/bin/chromium-headless-shell",) if os.path.exists(path)),
    "/usr/bin/chromium",
)
START_SECONDS = 300
READY_MILLISECONDS = 300_000
TRAIN_SECONDS = 600

README_PICTURE = pathlib.Path(__file__).parents[2] / "docs" / "page.png"
README_LAYER = "block_0_attention/key/bias"
#: `disttrain.examples.text` for 633 steps on Python's own library.
README_TRAINING = ("--epochs", "1", "--bytes", "720000", "--replication", "horovod")


@contextlib.contextmanager
def tensorboard(logdir, *flags, prefix=""):
    """Runs TensorBoard on a log directory; gives its address, and ends it and its children.

    Args:
        logdir: The directory.
        *flags: More of TensorBoard's flags.
        prefix: What its addresses begin with, such as "/tensorboard".

    Raises:
        RuntimeError: It ended, or did not answer for `START_SECONDS`; its output is told.
    """
    # TensorBoard takes a free port by itself, and prints it.
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    command += ["--host", "127.0.0.1", "--port", "0", "--path_prefix", prefix, *flags]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield _address(process, output)
        finally:
            # The Rust reader is a child of its own, so the whole group goes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _address(process, output):
    """The address that TensorBoard prints, once it answers there."""
    end, said = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < end and process.poll() is None:
        output.seek(0)
        said = output.read().decode(errors="replace")
        found = re.search(r"TensorBoard \S+ at (http://\S+)", said)
        if found:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(found[1], timeout=START_SECONDS).close()
                return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"TensorBoard did not start: {said}")


def plugin_frame(page):
    """The frame of the plugin in a page of TensorBoard, once it is there."""
    for _ in range(READY_MILLISECONDS // 100):
        for frame in page.frames:
            if "plugin_entry" in frame.url and "name=disttrain" in frame.url:
                return frame
        page.wait_for_timeout(100)
    raise RuntimeError("TensorBoard opened no frame for the plugin")


def wait_until_ready(frame):
    """Waits until the page has drawn what it was asked for."""
    frame.wait_for_function(
        "() => window.disttrainState && (window.disttrainState.ready || "
        "window.disttrainState.error)",
        timeout=READY_MILLISECONDS,
    )


def open_layer(frame, path):
    """Clicks a layer's label and waits for its lines."""
    frame.locator(".row").and_(frame.get_by_title(path, exact=True)).click()
    wait_until_ready(frame)


def train_for_readme(logdir):
    """Trains a byte-level transformer on two Horovod processes, into a directory.

    Raises:
        RuntimeError: It failed; its output is in the message.
    """
    program = pathlib.Path(sys.executable).with_name("horovodrun")
    command = [str(program), "-np", "2", "--gloo", "--network-interfaces", "lo", sys.executable]
    command += ["-m", "disttrain.examples.text", *README_TRAINING, "--logdir", str(logdir)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TRAIN_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the training failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def take(page, address, options):
    """Opens what the command line names in a page of the browser, and saves its picture."""
    state = {"run": options.run, "view": options.view, "layer": options.layer}
    query = {f"p.disttrain.{name}": text for name, text in state.items() if text}
    query |= {"darkMode": "true"} if options.dark else {}
    page.goto(f"{address}?{urllib.parse.urlencode(query)}#disttrain")
    frame = plugin_frame(page)
    wait_until_ready(frame)
    shown = frame.evaluate("() => window.disttrainState")
    if shown["error"]:
        raise SystemExit(f"the page shows an error: {shown['error']}")
    for name, text in state.items():
        if text and shown[name] != text:
            raise SystemExit(f"the page shows {name} {shown[name]!r}; there is no {text!r}")
    # The badge of Health comes last, as nobody waits for it.
    frame.wait_for_function("() => window.disttrainState.findings !== null")
    page.mouse.move(5, options.height - 5)
    page.wait_for_timeout(500)
    page.screenshot(path=options.output)


def main(arguments=None):
    """The command line."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logdir", nargs="?")
    parser.add_argument("output", nargs="?")
    parser.add_argument("--readme", action="store_true", help=f"train, and make {README_PICTURE}")
    parser.add_argument("--view", help="name of the view to open, such as layers")
    parser.add_argument("--run", help="name of the run to choose")
    parser.add_argument("--layer", help="path of a variable whose lines to open")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--scale", type=float, default=1, help="device pixels per CSS pixel")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        if options.readme:
            options.height, options.layer = 860, README_LAYER
            options.output = options.output or README_PICTURE
        if options.readme and not options.logdir:
            options.logdir = stack.enter_context(tempfile.TemporaryDirectory())
            train_for_readme(pathlib.Path(options.logdir) / "transformer")
        if not options.logdir or not options.output:
            parser.error("give a log directory and a file to write, or --readme")
        address = stack.enter_context(tensorboard(options.logdir))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        stack.callback(browser.close)
        size = {"width": options.width, "height": options.height}
        page = browser.new_page(viewport=size, device_scale_factor=options.scale)
        _wait_for_runs(address)
        take(page, address, options)


def _wait_for_runs(address):
    """Waits until TensorBoard has read something, and nothing new comes for a second."""
    end, before, since = time.monotonic() + START_SECONDS, None, 0
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{address}data/plugin/disttrain/runs", timeout=60) as answer:
            runs = json.load(answer)["runs"]
        now = [(run["name"], run["last_step"]) for run in runs]
        if now != before:
            before, since = now, time.monotonic()
        elif now and time.monotonic() - since > 1:
            return
        time.sleep(0.2)
    raise RuntimeError("TensorBoard has read no run of disttrain so far")


if __name__ == "__main__":
    main()
