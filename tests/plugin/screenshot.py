"""Takes a picture of the plugin's page: `python -m tests.plugin.screenshot LOGDIR OUT.png`.

It starts TensorBoard on the log directory, opens the plugin's tab in a headless Chromium, waits
until the page is ready and saves what it shows.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

CHROMIUM = "/usr/bin/chromium"
START_SECONDS = 60
READY_MILLISECONDS = 60_000


def free_port():
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def tensorboard(logdir, *flags):
    """Runs TensorBoard on a log directory; gives its address, and ends it and its children.

    Raises:
        RuntimeError: It ended, or did not answer within a minute; its output is in the message.
    """
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    command += ["--host", "127.0.0.1", "--port", str(port), *flags]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}/"
            _wait(process, address, output)
            yield address
        finally:
            # The Rust reader is a child of its own, so the whole group goes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process, address, output):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    output.seek(0)
    raise RuntimeError(f"TensorBoard did not start: {output.read().decode(errors='replace')}")


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


def main(arguments=None):
    """The command line."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logdir")
    parser.add_argument("output")
    parser.add_argument("--view", help="name of the view to open, such as layers")
    parser.add_argument("--run", help="name of the run to choose")
    parser.add_argument("--layer", help="path of a variable whose lines to open")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--scale", type=float, default=1, help="device pixels per CSS pixel")
    options = parser.parse_args(arguments)
    with tensorboard(options.logdir) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(
            viewport={"width": options.width, "height": options.height},
            device_scale_factor=options.scale,
        )
        suffix = "?darkMode=true" if options.dark else ""
        page.goto(f"{address}{suffix}#disttrain")
        frame = plugin_frame(page)
        wait_until_ready(frame)
        if options.run:
            frame.locator("select.run").select_option(options.run)
            wait_until_ready(frame)
        if options.view:
            frame.locator(f"#tab-{options.view}").click()
            wait_until_ready(frame)
        if options.layer:
            open_layer(frame, options.layer)
        error = frame.evaluate("() => window.disttrainState.error")
        if error:
            raise SystemExit(f"the page shows an error: {error}")
        page.mouse.move(5, options.height - 5)
        page.wait_for_timeout(500)
        page.screenshot(path=options.output)
        browser.close()


if __name__ == "__main__":
    main()
