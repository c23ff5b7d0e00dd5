// Layers: one or several chosen layers, every statistic as lines, histograms as ridges, and facts.

import {askJson} from '../api.js';
import {StepAxis} from '../axis.js';
import {askVariables} from '../askmany.js';
import {element, field} from '../dom.js';
import {count, number, whole} from '../format.js';
import {factsTable} from '../facts.js';
import {HORIZONTALS, Horizontal} from '../horizontal.js';
import {panelOrder} from '../layer.js';
import {ChartGrid} from '../chartgrid.js';
import {MOST_LAYERS, givePlaces} from '../layercolors.js';
import {LayerPicker} from '../layerpicker.js';
import {pinButton} from '../pins.js';
import {MOST_RIDGES} from '../ridgelines.js';
import {RidgeSection} from '../ridgesection.js';
import {MOST_SMOOTHING, knownSmoothing} from '../smoothing.js';
import {View} from './view.js';

// The charts are narrower than this many pixels.
const COLUMNS = 500;

// How many layers are drawn before any is chosen.
const FIRST_LAYERS = 3;

const SCALES = {auto: 'Automatic', log: 'Logarithmic', linear: 'Linear'};

export class Layers extends View {
  constructor(page) {
    super(page, 'layers', 'Layers');
    this.places = new Map();
    this.begins = new Map();
    this.#build();
  }

  get fields() {
    return ['run', 'start', 'end', 'layers', 'quantity'];
  }

  async load(signal) {
    const {page, state} = this;
    const {run} = page;
    this.#fillControls();
    this.variables = await this.#askVariables(run, signal);
    this.#choose();
    if (!this.drawn.length) {
      this.#showNothing();
      return;
    }
    const paths = this.drawn.map(({path}) => path);
    const {start, end} = state;
    const asked = {run: run.name, start, end};
    const statistic = panelOrder(run.statistics).map(({name}) => name);
    const [series, begin, counted] = await Promise.all([
      askVariables('series', paths, {...asked, statistic, columns: COLUMNS}, signal),
      this.#askBegin(run, signal),
      this.#askHistograms(run, asked, signal),
    ]);
    if (!series.records && start !== null) {
      // A resumed run wrote other records where the zoom was.
      page.note({start: null, end: null});
      await this.load(signal);
      return;
    }
    if (start === null && series.records) this.begins.set(run.name, series.first_wall_time[0]);
    this.series = series;
    this.begin = begin ?? series.first_wall_time[0];
    page.notice([...series.problems, ...(counted.answer ? counted.answer.problems : [])]);
    this.#show(counted);
  }

  setCursor(step) {
    this.charts.setCursor(this.horizontal ? this.horizontal.columnAtStep(step) : -1);
  }

  layout() {
    this.charts.resize();
    this.ridges.draw();
  }

  draw() {
    this.charts.draw();
    this.ridges.draw();
  }

  async #askVariables(run, signal) {
    const key = JSON.stringify([run.name, run.parts, run.variables, run.tags]);
    if (key !== this.variablesKey) {
      this.described = await askJson('variables', {run: run.name}, signal);
      this.variablesKey = key;
    }
    return this.described.variables;
  }

  // The wall time of the run's first record: what is read begins with it, unless it is zoomed.
  async #askBegin(run, signal) {
    if (this.state.start === null) return null;
    if (!this.begins.has(run.name)) {
      const {first_wall_time: [time]} = await askVariables(
        'series', [this.drawn[0].path],
        {run: run.name, statistic: run.statistics[0].name, columns: 1}, signal);
      this.begins.set(run.name, time);
    }
    return this.begins.get(run.name);
  }

  // The histograms or, in words, why there are none: the lines are shown in any case.
  async #askHistograms(run, asked, signal) {
    const {state} = this;
    const names = run.histogram_quantities.map(({name}) => name);
    this.ridges.fillQuantities(run.histogram_quantities, state.quantity);
    if (!names.length) return {answer: null, missing: 'run'};
    const quantity = names.includes(state.quantity) ? state.quantity : names[0];
    const paths = this.drawn.map(({path}) => path)
      .filter((path) => this.described.histograms.includes(path));
    if (!paths.length) return {answer: null, missing: 'layers'};
    try {
      const answer = await askVariables(
        'histograms', paths, {...asked, quantity, columns: MOST_RIDGES}, signal);
      return {answer: {...answer, variables: paths}};
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      return {answer: null, missing: 'error', message: error.message};
    }
  }

  // Those of the state that this run has; before any choice the open layer, or the first ones.
  #choose() {
    const {state, variables} = this;
    const known = new Map(variables.map((variable) => [variable.path, variable]));
    let chosen = [...new Set(state.layers)].filter((path) => known.has(path));
    if (!chosen.length && this.emptied !== state.run) {
      const trained = variables.filter(({trainable}) => trainable);
      chosen = known.has(state.layer) ? [state.layer]
        : (trained.length ? trained : variables).slice(0, FIRST_LAYERS).map(({path}) => path);
    }
    this.chosen = chosen;
    this.drawn = chosen.slice(0, MOST_LAYERS).map((path) => known.get(path));
    this.places = givePlaces(this.drawn.map(({path}) => path), this.places);
    state.rows = this.drawn.length;
    this.page.say(null);
    this.picker.show([...known.keys()], chosen, this.places);
  }

  #change(layers) {
    this.emptied = layers.length ? null : this.state.run;
    this.page.change({layers});
  }

  #show(counted) {
    this.empty.hidden = true;
    this.scroller.hidden = false;
    this.#showCharts();
    this.ridges.show(counted, this.drawn, this.places, this.state, new StepAxis(
      counted.answer || {first_step: [], last_step: [], records: 0}));
    this.facts.replaceChildren(factsTable(
      this.drawn, this.places, (layer) => this.page.change({view: 'overview', layer})));
  }

  #showNothing() {
    this.state.columns = 0;
    this.scroller.hidden = true;
    this.empty.hidden = false;
    this.empty.textContent = this.variables.length
      ? 'Choose a layer at the left to see its lines and histograms.'
      : 'This run has no layers.';
    this.charts.clear();
    this.page.notice(this.page.run.problems);
  }

  #showCharts() {
    if (!this.series) return;
    const {series, state} = this;
    this.horizontal = new Horizontal(state.horizontal, series, this.begin);
    state.columns = this.horizontal.columns;
    this.charts.show(this.horizontal, series, this.places, state);
    this.#describe();
  }

  #describe() {
    const {horizontal: {steps, kind, firstTime, lastTime}, state} = this;
    const range = state.start === null ? '' : ` from ${whole(state.start)} to ${whole(state.end)}`;
    const most = Math.ceil(steps.records / Math.max(1, steps.columns));
    const mean = steps.bucketed
      ? ` A point is the mean of up to ${count(most, 'record')}, the band from their minimum to ` +
        'their maximum.' : '';
    const last = steps.columns - 1;
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const days = [firstTime[0], lastTime[last]].map((time) => new Date(time * 1000)
      .toLocaleDateString('en-GB', {day: 'numeric', month: 'short', year: 'numeric'}));
    const when = kind !== 'wall' || last < 0 ? ''
      : ` ${[...new Set(days)].join(' to ')}, time zone ${zone}.`;
    this.summary.textContent =
      `${count(this.drawn.length, 'layer')}, ${count(steps.records, 'recorded step')}${range}.` +
      `${mean}${when}`;
    this.zoomOut.hidden = state.start === null;
  }

  // Layers in the order of their colours, which are the pinned chart's.
  #pinButton({name, label}) {
    const of = this.drawn.map(({path}) => path)
      .sort((one, other) => this.places.get(one) - this.places.get(other));
    const whose = of.length === 1 ? of[0] : `the ${of.length} layers`;
    return pinButton(this.page, {kind: 'layers', name, of}, `${label} of ${whose}`);
  }

  #zoom(range) {
    const {page, state} = this;
    const all = range && range[0] <= 1 && range[1] >= page.run.last_step;
    if (range && state.start === null && range[0] <= this.series.first_step[0] &&
        range[1] >= page.run.last_step) return;
    page.zoom(all ? null : range);
  }

  #point(nodes, x, y, spoken) {
    if (nodes) this.page.tooltip.place(x, y, ...nodes);
    else this.page.tooltip.hide();
    if (spoken) this.spoken.textContent = nodes.map((node) => node.innerText).join('. ');
  }

  #fillControls() {
    const {state} = this;
    this.scale.value = state.scale;
    this.horizontalSelect.value = state.horizontal;
    this.slider.value = knownSmoothing(state.smoothing);
    this.#showSmoothing();
  }

  #showSmoothing() {
    this.smoothingText.textContent = number(knownSmoothing(this.state.smoothing), 2);
  }

  #build() {
    const {page} = this;
    const select = (name, choices, onchange) => element(
      'select', {class: name, onchange}, ...Object.entries(choices).map(([value, text]) =>
        element('option', {value}, text)));
    const redraw = (changes) => {
      page.note(changes);
      this.#showCharts();
    };
    this.scale = select('scale', SCALES, () => redraw({scale: this.scale.value}));
    this.horizontalSelect = select(
      'horizontal', HORIZONTALS, () => redraw({horizontal: this.horizontalSelect.value}));
    this.smoothingText = element('output', {class: 'smoothing-value'});
    this.slider = element('input', {
      type: 'range', class: 'smoothing', min: 0, max: MOST_SMOOTHING, step: 0.01, value: 0,
      title: 'Weight of the past in an exponential average over the points shown',
      oninput: () => {
        this.state.smoothing = Number(this.slider.value);
        this.#showSmoothing();
        this.charts.setSmoothing(this.state.smoothing);
      },
      onchange: () => page.note(), // Browsers allow an address only so many changes a second.
    });
    this.controls.append(
      field('Scale', this.scale), field('Horizontal', this.horizontalSelect),
      field('Smoothing', element('span', {class: 'slider'}, this.slider, this.smoothingText)));
    const onPoint = (...told) => this.#point(...told);
    this.picker = new LayerPicker((layers) => this.#change(layers));
    this.charts = new ChartGrid({
      onPoint, onCursor: (step) => page.setCursor(step), onZoom: (range) => this.#zoom(range),
    }, (statistic) => this.#pinButton(statistic));
    this.ridges = new RidgeSection({
      onPoint, onQuantity: (quantity) => page.change({quantity}),
    });
    this.summary = element('span', {class: 'records'});
    this.zoomOut = element(
      'button', {class: 'link', type: 'button', hidden: true, onclick: () => page.zoom(null)},
      'Show all steps');
    this.facts = element('div', {class: 'table-scroller'});
    this.factsRoot = element(
      'section', {aria: {label: 'Shape and slots'}}, element('h2', {}, 'Shape and slots'),
      this.facts);
    const jump = (text, target) => element(
      'button', {class: 'link', type: 'button', onclick: () => target.scrollIntoView()}, text);
    this.spoken = element('div', {class: 'spoken', role: 'status'});
    this.scroller = element(
      'div', {class: 'layer-scroller'},
      element(
        'p', {class: 'layer-summary'}, this.summary, ' ', this.zoomOut,
        element('span', {class: 'jumps'}, jump('Histograms', this.ridges.root), ' ',
          jump('Shape and slots', this.factsRoot))),
      this.charts.root, this.ridges.root, this.factsRoot);
    this.empty = element('p', {class: 'layer-empty', role: 'status', hidden: true});
    this.root.append(
      element('div', {class: 'body'}, this.picker.root, this.scroller, this.empty), this.spoken);
  }
}
