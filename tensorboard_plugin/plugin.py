"""The HTTP routes: arguments in, `reader.Reader` asked, JSON or binary out, and the page's files.

Routes live under `data/plugin/disttrain/`: `runs` and `variables` list, `heatmap`, `series`,
`steps`, `replicas` and `histograms` answer arrays, of which `array` chooses some, `export` gives
these as files, and `health` the findings; `reader.Reader` says what each answers. An argument that
makes no sense gets 400, a name that does not exist 404, and both carry JSON `{"error": "..."}`. No
answer takes more than `answers.MOST_BYTES`.
"""

import functools
import pathlib

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from tensorboard_plugin import answers, export, metadata, reader

STATIC = pathlib.Path(__file__).parent / "static"

#: The only files that are served.
STATIC_FILES = (
    "address.js",
    "api.js",
    "askmany.js",
    "axis.js",
    "caption.js",
    "cells.js",
    "chartgrid.js",
    "chooser.js",
    "collapsed.js",
    "colors.js",
    "compare.css",
    "comparison.js",
    "configuration.js",
    "diverging.js",
    "dom.js",
    "eventline.js",
    "eventstrip.js",
    "exports.js",
    "expression.js",
    "facts.js",
    "findings.js",
    "format.js",
    "groups.js",
    "grouptip.js",
    "health.css",
    "heatasks.js",
    "heatcells.js",
    "heatmap.js",
    "heatstack.js",
    "histograms.js",
    "horizontal.js",
    "host.js",
    "index.css",
    "index.js",
    "labels.js",
    "layer.js",
    "layercolors.js",
    "layerpicker.js",
    "layers.css",
    "legend.js",
    "linechart.js",
    "linemarks.js",
    "lines.js",
    "memory.js",
    "memorytable.js",
    "messages.js",
    "multiline.js",
    "optimizer.css",
    "optimizertable.js",
    "overlay.js",
    "overview.css",
    "page.js",
    "paths.js",
    "picture.js",
    "pinned.js",
    "pins.js",
    "plot.js",
    "preview.js",
    "replicachart.js",
    "replicaheat.js",
    "replicanumbers.js",
    "replicas.css",
    "replicasummary.js",
    "replicatable.js",
    "ridgelines.js",
    "ridgesection.js",
    "rowchoice.js",
    "runfiles.js",
    "runlines.js",
    "search.js",
    "share.css",
    "share.js",
    "smoothing.js",
    "stack.css",
    "stack.js",
    "state.js",
    "stepevents.js",
    "steps.js",
    "table.js",
    "tabs.js",
    "toolbar.js",
    "tooltip.js",
    "tree.js",
    "views.css",
    "views/compare.js",
    "views/health.js",
    "views/layers.js",
    "views/optimizer.js",
    "views/overview.js",
    "views/replicas.js",
    "views/view.js",
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
        self._arrays = {
            "heatmap": self._heatmap,
            "series": self._series,
            "steps": self._steps,
            "replicas": self._replicas,
            "histograms": self._histograms,
        }

    def get_plugin_apps(self):
        """WSGI applications by route."""
        routes = {
            "/runs": self._runs,
            "/variables": self._variables,
            "/optimizer": self._optimizer,
            "/health": self._health,
            "/export": self._export,
        }
        for kind, ask in self._arrays.items():
            routes[f"/{kind}"] = functools.partial(_show, ask)
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

    def _optimizer(self, request, ctx, experiment):
        return _json(request, self._reader.optimizer(ctx, experiment, _text(request, "run")))

    def _health(self, request, ctx, experiment):
        return _json(request, self._reader.health(ctx, experiment, _text(request, "run")))

    def _export(self, request, ctx, experiment):
        format_ = _one_of(request, "format", export.FORMATS)
        kind = _one_of(request, "what", export.KINDS, None)
        answer = self._arrays[kind](request, ctx, experiment)
        names = [_text(request, "run")]
        named = request.args.getlist("statistic" if kind in ("heatmap", "series") else "quantity")
        name = export.file_name(format_, kind, *names, *named[:1])
        headers = [("Content-Disposition", f'attachment; filename="{name}"')]
        if format_ == "json":
            return _json(request, answers.to_json(*answer), headers=headers)
        content = export.to_csv(kind, *answer)
        return http_util.Respond(request, content, "text/csv", headers=headers)

    def _heatmap(self, request, ctx, experiment):
        run, statistic = _text(request, "run"), _text(request, "statistic")
        sample = _one_of(request, "sample", ("never", "allowed")) == "allowed"
        window = _window(request)
        return self._reader.heatmap(ctx, experiment, run, statistic, **window, sample=sample)

    def _series(self, request, ctx, experiment):
        run = _text(request, "run")
        variables, statistics = _texts(request, "variable"), _texts(request, "statistic")
        window = _window(request)
        return self._reader.series(ctx, experiment, run, variables, statistics, **window)

    def _histograms(self, request, ctx, experiment):
        run, quantity = _text(request, "run"), _text(request, "quantity")
        variables, window = _texts(request, "variable"), _window(request)
        return self._reader.histograms(ctx, experiment, run, variables, quantity, **window)

    def _steps(self, request, ctx, experiment):
        return self._reader.steps(ctx, experiment, _text(request, "run"), **_window(request))

    def _replicas(self, request, ctx, experiment):
        run, window = _text(request, "run"), _window(request)
        quantities = _texts(request, "quantity") if "quantity" in request.args else None
        return self._reader.replicas(ctx, experiment, run, quantities, **window)


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
            response = answer(request, ctx, plugin_util.experiment_id(request.environ))
            _check_length(response)
            return response
        except errors.PublicError as error:
            content = {"error": str(error)}
            return _json(request, content, error.http_code, error.headers)

    return application


def _check_length(response):
    """Refuses what names and metadata alone, which may be of any length, make too long."""
    length = int(response.headers["Content-Length"])
    if length > answers.MOST_BYTES:
        raise errors.InvalidArgumentError(
            f"the answer takes {length / 1e6:.1f} MB, more than {answers.MOST_BYTES / 1e6:.0f} MB; "
            "ask for fewer columns or variables, or accept gzip"
        )


def _static(name, request, ctx, experiment):
    del ctx, experiment
    path = STATIC / name
    return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix])


def _json(request, content, code=200, headers=None):
    return http_util.Respond(request, content, "application/json", code=code, headers=headers)


def _show(ask, request, ctx, experiment):
    """Arrays for the page."""
    # A wrong format fails before any work is done.
    format_ = _one_of(request, "format", ("json", "binary"))
    answer = _chosen(request, *ask(request, ctx, experiment))
    if format_ == "binary":
        content = answers.to_binary(*answer)
        octets = "application/octet-stream"
        return http_util.Respond(request, content, octets, content_encoding="gzip")
    return _json(request, answers.to_json(*answer))


def _chosen(request, header, arrays, recorded):
    """An answer with only the arrays that are asked for; all of them where none is."""
    wanted = request.args.getlist("array") or list(arrays)
    for name in wanted:
        if name not in arrays:
            one = answers.shown(name)
            raise errors.InvalidArgumentError(f"array must be of {', '.join(arrays)}, not {one}")
    return header, {name: arrays[name] for name in arrays if name in wanted}, recorded


def _one_of(request, name, values, default=0):
    """An argument with few values; `default` is the place of the one that it has when not given."""
    value = request.args.get(name, None if default is None else values[default])
    if value not in values:
        known = ", ".join(values[:-1]) + " or " + values[-1]
        got = "missing" if value is None else f"not {answers.shown(value)}"
        raise errors.InvalidArgumentError(f"{name} must be {known}, {got}")
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
