// Compare: the lines of several runs on a common axis, their heatmaps, and their differences.

import {askArrays} from '../api.js';
import {CELLS_LABELS} from '../cells.js';
import {RunChooser} from '../chooser.js';
import {chosenRuns} from '../comparison.js';
import {Configuration} from '../configuration.js';
import {element, field} from '../dom.js';
import {HeatStack} from '../heatstack.js';
import {givePlaces, swatch} from '../layercolors.js';
import {pinButton} from '../pins.js';
import {RunLines} from '../runlines.js';
import {View} from './view.js';

const DEFAULT_STATISTIC = 'update_ratio';

const LINE_COLUMNS = 500;
const AXES = {step: 'Step', relative: 'Time since the first record'};
const MOST_LETTERS = 80;

const short = (text) =>
  (text.length > MOST_LETTERS ? `${text.slice(0, MOST_LETTERS - 1)}…` : text);

// The end of a path tells more than its beginning.
const shortPath = (path) =>
  (path.length > 3 * MOST_LETTERS ? `…${path.slice(1 - 3 * MOST_LETTERS)}` : path);

export class Compare extends View {
  constructor(page) {
    super(page, 'compare', 'Compare');
    this.places = new Map();
    this.begins = new Map();
  }

  get fields() {
    return ['run', 'runs', 'start', 'end', 'statistic', 'horizontal'];
  }

  /** What a picture of the view is of. */
  get subject() {
    return this.runs?.map(({name}) => short(name)).join(', ');
  }

  async load(signal) {
    const {page, state} = this;
    if (!this.chooser) this.#build();
    const {names, left} = chosenRuns(page.runs, state);
    this.places = givePlaces(names, this.places);
    this.runs = names.map((name) => page.runs.find((run) => run.name === name));
    this.chooser.show(page.runs, names, this.places, left);
    this.#fillControls();
    page.say(null);
    if (names.length < 2) {
      this.#tooFew();
      return;
    }
    this.columns = this.#mostColumns();
    this.answers = await Promise.all(this.runs.map((run) => this.#ask(run, signal)));
    const records = this.answers.some(({heat, steps}) => heat?.records || steps?.records);
    if (!records && state.start !== null) {
      // The runs have no record where the zoom of another run was.
      page.note({start: null, end: null});
      await this.load(signal);
      return;
    }
    page.notice(this.answers.flatMap(({run, problems}) =>
      problems.map(({tag, message}) => ({tag: `${short(run.name)}: ${tag}`, message}))));
    this.empty.replaceChildren();
    this.body.hidden = false;
    this.#showAll();
  }

  setCursor(step) {
    if (!this.stack) return;
    this.stack.setCursor(step);
    this.lines.setStep(step);
  }

  layout() {
    if (!this.stack || this.body.hidden || !this.root.clientHeight) return;
    this.#fit();
    const wanted = this.#mostColumns();
    const most = Math.max(...this.answers.map(({heat}) => (heat ? heat.records : 0)));
    const misfit = Math.abs(wanted - this.columns) > 0.25 * this.columns;
    if (misfit && most > Math.min(wanted, this.columns)) this.page.reload();
  }

  draw() {
    if (!this.stack || this.body.hidden) return;
    this.stack.draw();
    this.lines.draw();
  }

  async #ask(run, signal) {
    const {start, end, statistic, horizontal} = this.state;
    const asked = {run: run.name, start, end};
    const has = run.statistics.some(({name}) => name === statistic);
    const columns = this.#wantedColumns(run.variables);
    const first = horizontal !== 'step' && start !== null && !this.begins.has(run.name);
    const lines = Math.min(LINE_COLUMNS, this.page.limits.columns);
    const [heat, steps, beginning] = await Promise.all([
      has ? askArrays('heatmap', {...asked, statistic, columns}, signal) : null,
      run.quantities.length ? askArrays('steps', {...asked, columns: lines}, signal) : null,
      // The first record of all tells when the run began.
      first && run.quantities.length
        ? askArrays('steps', {run: run.name, columns: 1}, signal) : null,
    ]);
    const begin = beginning || (start === null ? steps : null);
    if (begin?.records) this.begins.set(run.name, Number(begin.first_wall_time[0]));
    const problems = [...(heat?.problems || []), ...(steps?.problems || [])];
    return {run, name: run.name, place: this.places.get(run.name), heat, steps, problems};
  }

  #showAll() {
    const {state} = this;
    this.configuration.show(this.answers);
    this.lines.show(this.answers, state.horizontal, this.begins);
    if (!this.runs.some(({name}) => name === state.difference)) this.page.note({difference: ''});
    this.#showHeat();
    this.zoomOut.hidden = state.start === null;
    this.#fit();
  }

  #showHeat() {
    const {state} = this;
    this.page.tooltip.hide();
    state.rows = this.stack.show(this.answers, state.difference, state.filter);
    state.columns = this.stack.cells[0]?.shown.axis.columns || 0;
  }

  #tooFew() {
    this.body.hidden = true;
    const {runs} = this.page;
    this.empty.replaceChildren(element(
      'div', {class: 'message empty', role: 'status'},
      element('h2', {}, runs.length < 2 ? 'There is only one run' : 'Choose another run'),
      element(
        'p', {}, runs.length < 2
          ? 'Train again with another directory below the same log directory; the runs can be ' +
            'compared here once TensorBoard has read them.'
          : 'It takes two runs to compare: choose up to six of them above.')));
  }

  #hover(cells, at, keyboard) {
    if (at === null) {
      this.page.tooltip.hide();
      this.setCursor(null);
      return;
    }
    this.setCursor(at.step);
    const {title, lines} = this.stack.describe(cells, at);
    this.#tell(at, title, lines, keyboard);
  }

  #tell({x, y}, title, lines, keyboard) {
    this.page.tooltip.place(
      x, y, element('div', {class: 'tooltip-title'}, shortPath(title)),
      element('dl', {}, ...lines.flatMap(([name, text, place]) => [
        element('dt', {}, place === undefined ? null : swatch(place), name),
        element('dd', {}, text)])));
    if (!keyboard) return;
    const said = lines.map((line) => line.slice(0, 2).join(': '));
    this.said.textContent = `${shortPath(title)}. ${said.join('; ')}`;
  }

  #mostColumns() {
    return Math.max(...this.runs.map(({variables}) => this.#wantedColumns(variables)));
  }

  #wantedColumns(variables) {
    const {columns, cells} = this.page.limits;
    const pixels = Math.max(100, this.page.size.width - CELLS_LABELS - 60);
    const most = Math.floor(cells / Math.max(1, variables));
    return Math.max(1, Math.min(pixels, columns, most));
  }

  #fit() {
    const width = this.stack.root.clientWidth;
    if (!width) return;
    this.stack.layout(width, this.page.size.height);
    this.lines.resize();
    this.setCursor(null);
  }

  #fillControls() {
    const {state} = this;
    const known = new Map(this.runs.flatMap(({statistics}) =>
      statistics.map(({name, label}) => [name, label])));
    if (known.size && !known.has(state.statistic)) {
      state.statistic = known.has(DEFAULT_STATISTIC) ? DEFAULT_STATISTIC : [...known.keys()][0];
    }
    const option = (chosen, value, text) =>
      element('option', {value, selected: value === chosen, title: text}, short(text));
    this.statistic.replaceChildren(...[...known].map(([name, label]) =>
      option(state.statistic, name, label)));
    this.difference.replaceChildren(
      option(state.difference, '', 'one below the other'),
      ...this.runs.map(({name}) => option(state.difference, name, `difference from ${name}`)));
    const kind = state.horizontal === 'step' ? 'step' : 'relative';
    this.horizontal.replaceChildren(...Object.entries(AXES).map(([name, label]) =>
      option(kind, name, label)));
    this.filter.value = state.filter;
  }

  // Built when it is first shown: who never compares does not wait for it.
  #build() {
    const {page} = this;
    const select = (change) =>
      element(
        'select', {class: 'compare-select', onchange: (event) => change(event.target.value)});
    this.statistic = select((statistic) => page.change({statistic}));
    this.difference = select((difference) => {
      page.note({difference});
      this.#showHeat();
      this.#fit();
    });
    this.horizontal = select((horizontal) => page.change({horizontal}));
    this.filter = element('input', {
      type: 'search', placeholder: 'Text or /expression/', spellcheck: false,
      oninput: () => {
        page.note({filter: this.filter.value.trim()});
        this.#showHeat();
        this.#fit();
      },
    });
    this.controls.append(
      field('Statistic', this.statistic), field('Heatmaps', this.difference));
    this.chooser = new RunChooser((runs) => page.change({runs}));
    this.zoomOut = element(
      'button', {class: 'link', type: 'button', hidden: true, onclick: () => page.zoom(null)},
      'Show all steps');
    this.configuration = new Configuration();
    this.lines = new RunLines(
      {
        onPoint: (place, point, title, lines, keyboard) => {
          if (this.lines.kind === 'step') this.stack.setCursor(place);
          if (place === null) page.tooltip.hide();
          else this.#tell(point, title, lines, keyboard);
        },
        onZoom: (range) => page.zoom(range),
      },
      ({name, label}) => pinButton(
        page, {kind: 'runs', name, of: this.runs.map((run) => run.name)},
        `${label} of these runs`),
      this.zoomOut, field('Over', this.horizontal));
    this.stack = new HeatStack(
      {
        onHover: (cells, at, keyboard) => this.#hover(cells, at, keyboard),
        onZoom: (range) => page.zoom(range),
      },
      field('Layers', this.filter));
    this.said = element('p', {class: 'unseen', role: 'status'});
    this.body = element(
      'div', {class: 'compare-body', hidden: true}, this.lines.root, this.configuration.root,
      this.stack.root);
    this.empty = element('div', {class: 'place'});
    this.root.append(element(
      'div', {class: 'charts'}, this.chooser.root, this.empty, this.body, this.said));
  }
}
