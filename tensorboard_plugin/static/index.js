// The page's beginning and its controller: which run, statistic and layer are shown, when data is
// asked for, and who is told. Drawing lives in the other modules.

import {askArrays, askJson} from './api.js';
import {StepAxis} from './axis.js';
import {Caption} from './caption.js';
import {colorScale} from './colors.js';
import {element} from './dom.js';
import {Heatmap, LABEL_WIDTH} from './heatmap.js';
import {followReloads, followSize, followTheme} from './host.js';
import {LayerPanel, panelOrder} from './layer.js';
import {
  errorMessage, loadingMessage, noMatchMessage, noRecordsMessage, noRunsMessage, problemsNotice,
} from './messages.js';
import {StepLines} from './steps.js';
import {Toolbar} from './toolbar.js';
import {Tooltip} from './tooltip.js';

const DEFAULT_STATISTIC = 'update_ratio';

// The panel's plots are narrower than this many pixels.
const PANEL_COLUMNS = 400;

class Page {
  constructor() {
    // What tests and scripts may look at; the canvas has nothing to query.
    this.state = {
      run: null, statistic: DEFAULT_STATISTIC, rows: 0, columns: 0, layer: null,
      start: null, end: null, ready: false, error: null,
    };
    window.disttrainState = this.state;
    this.runs = [];
    this.filter = '';
    this.#build();
    this.#listen();
  }

  /** Asks for the runs and shows one of them; keeps what is chosen where it still exists. */
  async load() {
    this.stale = false;
    this.#busy();
    const signal = this.#abortEarlier();
    try {
      const {runs, limits} = await askJson('runs', {}, signal);
      this.runs = runs;
      this.limits = limits;
      if (!runs.length) {
        this.state.run = this.loaded = null;
        this.toolbar.showRuns(runs, this.state.run);
        this.#say(noRunsMessage());
        this.#done();
        return;
      }
      if (!this.#run()) this.state.run = runs[0].name;
      this.toolbar.showRuns(runs, this.state.run);
      if (this.#key() !== this.loaded) await this.#loadRun(signal);
      this.#done();
    } catch (error) {
      this.#fail(error);
    }
  }

  #run() {
    return this.runs.find(({name}) => name === this.state.run);
  }

  // What is on the page, with the run's newest step: the same key needs no second look.
  #key() {
    const {statistic, start, end} = this.state;
    return JSON.stringify([statistic, start, end, this.columns, this.#run()]);
  }

  // Changes what is shown, and asks for it.
  #ask(changes) {
    Object.assign(this.state, changes);
    return this.#reload();
  }

  async #reload() {
    this.#busy();
    const signal = this.#abortEarlier();
    try {
      await this.#loadRun(signal);
      this.#done();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #loadRun(signal) {
    this.loaded = null;
    const run = this.#run();
    this.#fillStatistics(run);
    if (!run.statistics.length || run.last_step < 0) {
      this.#notice(run.problems);
      this.#say(noRecordsMessage(run.problems.length > 0));
      return;
    }
    const columns = this.#wantedColumns(run.variables);
    const {statistic, start, end} = this.state;
    const asked = {run: run.name, columns, start, end};
    const [heat, steps, {variables}] = await Promise.all([
      askArrays('heatmap', {...asked, statistic}, signal),
      askArrays('steps', asked, signal),
      askJson('variables', {run: run.name}, signal),
    ]);
    this.heat = heat;
    this.steps = steps;
    this.variables = variables;
    this.columns = columns;
    this.axis = new StepAxis(heat);
    this.#notice([...heat.problems, ...steps.problems.filter((problem) =>
      !heat.problems.some(({tag}) => tag === problem.tag))]);
    if (!heat.records && start !== null) {
      // A resumed run wrote other records where the zoom was.
      Object.assign(this.state, {start: null, end: null});
      await this.#loadRun(signal);
      return;
    }
    if (!heat.records) {
      this.#say(noRecordsMessage(false));
      return;
    }
    this.#showHeat();
    if (this.state.layer !== null) await this.#loadLayer(signal);
    this.loaded = this.#key();
  }

  async #loadLayer(signal) {
    const variable = this.variables.find(({path}) => path === this.state.layer);
    if (!variable) {
      this.#closeLayer();
      return;
    }
    this.panel.open(variable);
    this.#layout();
    if (this.#misfit()) {
      await this.#reload();
      return;
    }
    const statistics = panelOrder(this.#run().statistics).map(({name}) => name);
    const {run, start, end} = this.state;
    const answer = await askArrays('series', {
      run, variable: variable.path, statistic: statistics, columns: PANEL_COLUMNS, start, end,
    }, signal);
    this.panel.show(answer, this.axis);
  }

  async #openLayer(path) {
    this.state.layer = path;
    this.heatmap.select(this.heat.variables.indexOf(path));
    this.state.ready = false;
    if (this.layerRequest) this.layerRequest.abort();
    this.layerRequest = new AbortController();
    try {
      await this.#loadLayer(this.layerRequest.signal);
      this.state.ready = true;
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.state.error = error.message;
      this.panel.fail(error.message);
    }
  }

  #closeLayer() {
    const row = this.heatmap.selected;
    this.state.layer = null;
    this.panel.close();
    this.heatmap.select(-1);
    this.#layout();
    if (this.#misfit()) this.#reload();
    const label = this.heatmap.labels.querySelector(`[data-row="${row}"]`);
    if (label) label.focus();
  }

  #showHeat() {
    const {heat, axis} = this;
    const filter = this.filter.toLowerCase();
    const rows = heat.variables.map((_, row) => row)
      .filter((row) => heat.variables[row].toLowerCase().includes(filter));
    this.state.rows = rows.length;
    this.state.columns = axis.columns;
    if (!rows.length) {
      this.#say(noMatchMessage(this.filter));
      return;
    }
    this.#say(null);
    const scale = colorScale(heat.statistic, heat.mean.values);
    this.heatmap.show(heat, axis, scale, rows);
    this.heatmap.select(heat.variables.indexOf(this.state.layer));
    this.stepLines.show(this.steps, new StepAxis(this.steps), axis);
    this.caption.legend.show(scale, heat.statistic, this.heatmap.kinds());
    this.caption.show(heat, axis, rows.length, this.state);
    this.#layout();
  }

  // As many columns as pixels, within the server's limits.
  #wantedColumns(variables) {
    const taken = LABEL_WIDTH + this.panel.root.offsetWidth + 40;
    const pixels = Math.max(100, this.main.clientWidth - taken);
    const {columns, cells} = this.limits;
    return Math.max(1, Math.min(pixels, columns, Math.floor(cells / Math.max(1, variables))));
  }

  #layout() {
    if (this.content.hidden || !this.heat) return;
    const room = this.overview.clientHeight;
    const least = StepLines.height;
    const lines = Math.max(least, Math.min(2 * least, room - 24 - 28 * this.state.rows));
    this.heatmap.layout(Math.max(120, room - lines - 8));
    this.stepLines.layout(lines, this.heatmap.insets);
    this.panel.resize();
  }

  #resized() {
    if (this.stale || !this.started) {
      this.started = true;
      this.load();
      return;
    }
    this.#layout();
    if (this.#misfit()) this.#reload();
  }

  // Whether far more or fewer columns than there are would suit the page's size.
  #misfit() {
    if (!this.axis) return false;
    const wanted = this.#wantedColumns(this.#run().variables);
    return this.axis.records > Math.min(wanted, this.columns) &&
      Math.abs(wanted - this.columns) > 0.25 * this.columns;
  }

  // Shows only the steps of a range, or all of them where it is null.
  #zoom(range) {
    const [start, end] = range || [null, null];
    if (start === this.state.start && end === this.state.end) return;
    this.tooltip.hide();
    this.#ask({start, end});
  }

  #setCursor(step) {
    this.heatmap.setCursor(step);
    this.stepLines.setCursor(step);
    this.panel.setCursor(step);
  }

  #hover(cell) {
    if (cell === null) {
      this.tooltip.hide();
      this.#setCursor(null);
      return;
    }
    this.tooltip.show(cell, this.heat, this.axis);
    this.#setCursor(this.axis.middle[cell.column]);
  }

  #redraw() {
    this.heatmap.draw();
    this.caption.legend.draw();
    this.stepLines.draw();
    this.panel.draw();
  }

  #abortEarlier() {
    if (this.request) this.request.abort();
    if (this.layerRequest) this.layerRequest.abort();
    this.request = new AbortController();
    return this.request.signal;
  }

  #busy() {
    this.state.ready = false;
    this.state.error = null;
    this.root.setAttribute('aria-busy', 'true');
  }

  #done() {
    this.state.ready = true;
    this.root.setAttribute('aria-busy', 'false');
  }

  #fail(error) {
    if (error.name === 'AbortError') return;
    this.loaded = null;
    this.state.error = error.message;
    this.root.setAttribute('aria-busy', 'false');
    this.#say(errorMessage(error, () => this.load()));
  }

  // Shows a message in the content's place, or the content where there is none.
  #say(message) {
    this.content.hidden = message !== null;
    this.place.replaceChildren(...(message ? [message] : []));
  }

  #notice(problems) {
    const notice = problemsNotice(problems);
    this.noticePlace.replaceChildren(...(notice ? [notice] : []));
  }

  #fillStatistics({statistics}) {
    const names = statistics.map(({name}) => name);
    if (names.length && !names.includes(this.state.statistic)) {
      this.state.statistic = names.includes(DEFAULT_STATISTIC) ? DEFAULT_STATISTIC : names[0];
    }
    this.toolbar.showStatistics(statistics, this.state.statistic);
  }

  #build() {
    this.toolbar = new Toolbar({
      onRun: (run) => this.#ask({run, start: null, end: null}),
      onStatistic: (statistic) => this.#ask({statistic}),
      onFilter: (filter) => {
        this.filter = filter;
        if (this.heat && this.heat.records) this.#showHeat();
      },
    });
    const onCursor = (step) => this.#setCursor(step);
    const onZoom = (low, high) => {
      const range = this.axis.recordsWithin(low, high);
      if (range) this.#zoom(range);
    };
    this.heatmap = new Heatmap({
      onHover: (cell) => this.#hover(cell),
      onSelect: (row) => this.#openLayer(this.heat.variables[row]),
      onZoom,
    });
    this.stepLines = new StepLines({onCursor, onZoom});
    this.panel = new LayerPanel({onClose: () => this.#closeLayer(), onCursor, onZoom});
    this.tooltip = new Tooltip();
    this.caption = new Caption(() => this.#zoom(null));
    this.overview = element('div', {class: 'overview'}, this.heatmap.root, this.stepLines.root);
    this.content = element(
      'div', {class: 'content', hidden: true},
      this.caption.root,
      element('div', {class: 'body'}, this.overview, this.panel.root));
    this.noticePlace = element('div', {});
    this.place = element('div', {class: 'place'}, loadingMessage());
    this.main = element('main', {}, this.noticePlace, this.place, this.content);
    this.root = element('div', {class: 'page'}, this.toolbar.root, this.main, this.tooltip.root);
    document.body.append(this.root);
  }

  #listen() {
    followTheme(() => this.#redraw());
    followReloads(() => {
      // A hidden tab's frame has no size; it asks once it is seen again.
      if (this.main.clientWidth > 0) this.load();
      else this.stale = true;
    });
    followSize(this.main, () => this.#resized());
  }
}

const STYLES = ['./vendor/uPlot/uPlot.min.css', './index.css', './views.css'];

function style(name) {
  return new Promise((loaded) => {
    const href = new URL(name, import.meta.url).href;
    const link = {rel: 'stylesheet', href, onload: loaded, onerror: loaded};
    document.head.append(element('link', link));
  });
}

/** What TensorBoard calls to start the page. */
export async function render() {
  document.title = 'disttrain';
  document.documentElement.lang = 'en';
  await Promise.all(STYLES.map(style));
  new Page();
}
