"""The HTTP routes: arguments in, `reader.Reader` asked, JSON or binary out, and the page's files.

Routes live under `data/plugin/disttrain/`. An argument that makes no sense gets 400, a name that
does not exist 404, and both carry JSON `{"error": "..."}`.
"""

import functools
import pathlib

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from tensorboard_plugin import answers, metadata, reader

STATIC = pathlib.Path(__file__).parent / "static"

#: The only files that are served.
STATIC_FILES = (
    "api.js",
    "axis.js",
    "caption.js",
    "colors.js",
    "dom.js",
    "format.js",
    "heatmap.js",
    "host.js",
    "index.css",
    "index.js",
    "layer.js",
    "legend.js",
    "lines.js",
    "messages.js",
    "paths.js",
    "steps.js",
    "toolbar.js",
    "tooltip.js",
    "views.css",
    "vendor/uPlot/uPlot.esm.js",
    "vendor/uPlot/uPlot.min.css",
)
_TYPES = {".js": "text/javascript", ".css": "text/css"}


class Plugin(base_plugin.TBPlugin):
    """TensorBoard's view of disttrain."""

    plugin_name = metadata.PLUGIN_NAME

    def __init__(self, context):
        """Takes the `base_plugin.TBContext`; only its data provider is used."""
        self._reader = reader.Reader(context.data_provider)

    def get_plugin_apps(self):
        """WSGI applications by route."""
        routes = {
            "/runs": self._runs,
            "/variables": self._variables,
            "/heatmap": self._heatmap,
            "/series": self._series,
            "/histograms": self._histograms,
            "/steps": self._steps,
            "/replicas": self._replicas,
        }
        apps = {path: _application(answer) for path, answer in routes.items()}
        for name in STATIC_FILES:
            apps[f"/static/{name}"] = _application(functools.partial(_static, name))
        return apps

    def is_active(self):
        """False: TensorBoard itself activates a plugin whose name has data."""
        return False

    def frontend_metadata(self):
        """Where the page begins."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="disttrain")

    def _runs(self, request, ctx, experiment):
        return _json(request, self._reader.runs(ctx, experiment))

    def _variables(self, request, ctx, experiment):
        return _json(request, self._reader.variables(ctx, experiment, _text(request, "run")))

    def _heatmap(self, request, ctx, experiment):
        run, statistic = _text(request, "run"), _text(request, "statistic")
        answer = self._reader.heatmap(ctx, experiment, run, statistic, **_window(request))
        return _arrays(request, answer)

    def _series(self, request, ctx, experiment):
        run = _text(request, "run")
        variables, statistics = _texts(request, "variable"), _texts(request, "statistic")
        window = _window(request)
        answer = self._reader.series(ctx, experiment, run, variables, statistics, **window)
        return _arrays(request, answer)

    def _histograms(self, request, ctx, experiment):
        run, quantity = _text(request, "run"), _text(request, "quantity")
        variables, window = _texts(request, "variable"), _window(request)
        answer = self._reader.histograms(ctx, experiment, run, variables, quantity, **window)
        return _arrays(request, answer)

    def _steps(self, request, ctx, experiment):
        run = _text(request, "run")
        return _arrays(request, self._reader.steps(ctx, experiment, run, **_window(request)))

    def _replicas(self, request, ctx, experiment):
        run, window = _text(request, "run"), _window(request)
        quantities = _texts(request, "quantity") if "quantity" in request.args else None
        answer = self._reader.replicas(ctx, experiment, run, quantities, **window)
        return _arrays(request, answer)


def _application(answer):
    """A WSGI application from `answer(request, ctx, experiment)`, with errors as JSON."""

    @wrappers.Request.application
    def application(request):
        try:
            if request.method not in ("GET", "HEAD"):
                error = errors.PublicError(f"{request.method} is not allowed here, only GET is")
                error.http_code = 405
                error.headers.append(("Allow", "GET, HEAD"))
                raise error
            ctx = plugin_util.context(request.environ)
            return answer(request, ctx, plugin_util.experiment_id(request.environ))
        except errors.PublicError as error:
            content = {"error": str(error)}
            return _json(request, content, error.http_code, error.headers)

    return application


def _static(name, request, ctx, experiment):
    del ctx, experiment
    path = STATIC / name
    return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix])


def _json(request, content, code=200, headers=None):
    return http_util.Respond(request, content, "application/json", code=code, headers=headers)


def _arrays(request, answer):
    if _format(request) == "binary":
        content = answers.to_binary(*answer)
        octets = "application/octet-stream"
        return http_util.Respond(request, content, octets, content_encoding="gzip")
    return _json(request, answers.to_json(*answer))


def _format(request):
    value = request.args.get("format", "json")
    if value not in ("json", "binary"):
        raise errors.InvalidArgumentError(f"format must be json or binary, not {value!r}")
    return value


def _text(request, name):
    values = request.args.getlist(name)
    if len(values) != 1 or not values[0]:
        raise errors.InvalidArgumentError(f"give {name!r} exactly once, and not empty")
    return values[0]


def _texts(request, name):
    values = list(dict.fromkeys(request.args.getlist(name)))
    if not values:
        raise errors.InvalidArgumentError(f"give {name!r} at least once")
    return values


def _window(request):
    _format(request)  # A wrong format fails before any work is done.
    columns = _integer(request, "columns", reader.DEFAULT_COLUMNS)
    start, end = _integer(request, "start", None), _integer(request, "end", None)
    if not 1 <= columns <= reader.MAX_COLUMNS:
        raise errors.InvalidArgumentError(
            f"columns must be from 1 to {reader.MAX_COLUMNS}, not {columns}"
        )
    if start is not None and end is not None and start > end:
        raise errors.InvalidArgumentError(f"start {start} lies behind end {end}")
    return {"columns": columns, "start": start, "end": end}


def _integer(request, name, default):
    value = request.args.get(name)
    if value is None:
        return default
    # int() also takes underscores, spaces and other scripts' digits, and any number of them.
    if not value.isascii() or not value.removeprefix("-").isdigit() or len(value) > 18:
        raise errors.InvalidArgumentError(f"{name} must be a whole number, not {value[:40]!r}")
    return int(value)
