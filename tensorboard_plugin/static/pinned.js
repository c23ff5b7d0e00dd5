// One pinned chart: of layers, of the run as a whole, of its replicas, or of several runs.

import {askArrays} from './api.js';
import {StepAxis} from './axis.js';
import {askVariables} from './askmany.js';
import {CommonAxis} from './comparison.js';
import {element} from './dom.js';
import {exact, number} from './format.js';
import {Horizontal} from './horizontal.js';
import {Line} from './lines.js';
import {MOST_LINES, MultiLine, lineKey} from './multiline.js';
import {Overlay} from './overlay.js';
import {ReplicaChart, linesOfReplicas} from './replicachart.js';
import {rowOf} from './stack.js';

const COLUMNS = 300;
const MISSING = 'Not recorded in this run';

/**
 * Asks for what a pin names, and makes its chart.
 * @param {{kind: string, name: string, of: string[]}} pin
 * @param {Page} page
 * @param {Set<string>} known Paths of the run's variables, where the pin is of layers.
 * @param {AbortSignal} signal
 * @returns {Promise<Pinned>} Shown with `show` once its `root` is in the page.
 */
export async function makePinned(pin, page, known, signal) {
  const asked = {columns: COLUMNS, start: page.state.start, end: page.state.end};
  return MAKERS[pin.kind](pin, page, asked, signal, known);
}

const MAKERS = {run: pinnedRun, layers: pinnedLayers, replicas: pinnedReplicas, runs: pinnedRuns};

async function pinnedRun({name}, page, asked, signal) {
  const answer = await askArrays('steps', {...asked, run: page.run.name}, signal);
  const index = answer.quantities.findIndex((quantity) => quantity.name === name);
  if (index < 0 || !answer.records) return new Pinned(name, 'whole run', 'the run', MISSING);
  const axis = new StepAxis(answer);
  const quantity = answer.quantities[index];
  return oneLine(
    new Pinned(quantity.label, 'whole run', 'the run'), page, axis, quantity,
    rowOf(answer, index, axis.columns));
}

async function pinnedLayers({name, of}, page, asked, signal, known) {
  const {run} = page;
  const statistic = run.statistics.find((one) => one.name === name);
  const paths = of.filter((path) => known.has(path)).slice(0, MOST_LINES);
  const words = of.length === 1 ? of[0] : `${of.length} layers`;
  const label = statistic ? statistic.label : name;
  if (!paths.length || !statistic) {
    return new Pinned(label, words, words, paths.length ? MISSING : 'Not in this run');
  }
  const answer = await askVariables(
    'series', paths, {...asked, run: run.name, statistic: name}, signal);
  if (!answer.records) return new Pinned(label, words, words, MISSING);
  const axis = new StepAxis(answer);
  const lines = paths.map((_, row) => rowOf(answer, row, axis.columns));
  const pinned = new Pinned(label, words, words);
  if (of.length === 1) return oneLine(pinned, page, axis, statistic, lines[0]);
  const plot = element('div', {class: 'plot'});
  const chart = new MultiLine(plot, listenersOf(page, axis), axis, statistic, lines);
  const values = pinned.list(paths);
  return pinned.fill(chart, plot, () => chart.show(), (step) => {
    const column = step === null ? null : axis.columnAt(step);
    lines.forEach(({mean}, row) => {
      values[row].textContent = column === null || column < 0 ? '' : exact(mean[column]);
    });
  });
}

async function pinnedReplicas({name}, page, asked, signal) {
  const {run} = page;
  const words = 'each replica';
  if (!run.replica_quantities.some((one) => one.name === name)) {
    return new Pinned(name, words, 'the replicas', MISSING);
  }
  const answer = await askArrays(
    'replicas', {...asked, run: run.name, quantity: name}, signal);
  if (!answer.records) return new Pinned(name, words, 'the replicas', MISSING);
  const axis = new StepAxis(answer);
  const replicas = new ReplicaChart(
    axis, answer.quantities[0], linesOfReplicas(answer, name), page.tooltip);
  const {quantity: {label}, lines, many} = replicas;
  const plot = element('div', {class: 'plot'});
  const chart = replicas.make(plot, {...listenersOf(page, axis), showSteps: true});
  const pinned = new Pinned(label, words, 'the replicas');
  const values = many ? [] : pinned.list(lines.map((_, replica) => String(replica)));
  return pinned.fill(chart, plot, () => chart.show(), (step) => {
    const column = step === null ? -1 : axis.columnAt(step);
    values.forEach((value, replica) => {
      value.textContent = column < 0 ? '' : number(lines[replica].mean[column]);
    });
  });
}

async function pinnedRuns({name, of}, page, asked, signal) {
  const names = of.filter((one) => page.runs.some((run) => run.name === one)).slice(0, MOST_LINES);
  const words = `${of.length} runs`;
  const answers = await Promise.all(names.map((run) =>
    askArrays('steps', {...asked, run}, signal)));
  const lines = names.flatMap((run, place) => {
    const answer = answers[place];
    const index = answer.quantities.findIndex((quantity) => quantity.name === name);
    if (index < 0 || !answer.records) return [];
    const horizontal = new Horizontal('step', answer, 0);
    const quantity = answer.quantities[index];
    return [{name: run, place, horizontal, quantity, ...rowOf(answer, index, horizontal.columns)}];
  });
  if (!lines.length) return new Pinned(name, words, words, 'Not recorded in these runs');
  const [{quantity}] = lines;
  const pinned = new Pinned(quantity.label, words, words);
  const chart = new Overlay({
    onPoint: (_, step) => page.setCursor(step), onZoom: (range) => page.zoom(range),
    named: false,
  });
  const range = new CommonAxis(lines.map(({horizontal}) => horizontal));
  const values = pinned.list(lines.map((line) => line.name));
  return pinned.fill(chart, chart.box, () => chart.show(range, quantity, lines), (step) => {
    lines.forEach((line, index) => {
      const value = step === null ? undefined : chart.valueAt(line, step);
      values[index].textContent = value === undefined ? '' : exact(value);
    });
  });
}

function oneLine(pinned, page, axis, statistic, values) {
  const plot = element('div', {class: 'plot'});
  const line = new Line(plot, listenersOf(page, axis));
  return pinned.fill(line, plot, () => line.show(axis, statistic, values), (step) => {
    const at = line.valueAt(step);
    pinned.value.textContent = at === undefined ? '' : step === null ? number(at) : exact(at);
  });
}

function listenersOf(page, axis) {
  return {
    showSteps: true,
    onCursor: (step) => page.setCursor(step),
    onZoom: (low, high) => {
      const range = axis.recordsWithin(low, high);
      if (range) page.zoom(range);
    },
  };
}

// A name whose end is seen where there is no room, as the box around it runs from right to left.
function leftToRight(kind, name) {
  return element('span', {class: kind}, element('bdi', {dir: 'ltr'}, name));
}

/** A figure with a heading, and a chart or a sentence why there is none. */
class Pinned {
  constructor(label, of, whose, missing = null) {
    this.title = `${label} of ${whose}`;
    this.value = element('span', {class: 'value'});
    this.heading = element(
      'figcaption', {title: this.title}, element('span', {class: 'name'}, label),
      leftToRight('of', of), this.value);
    this.root = element('figure', {class: missing ? 'pinned missing' : 'pinned'}, this.heading);
    if (missing) this.root.append(element('div', {class: 'plot'}, missing));
  }

  /** A line of names with the colours of their lines; gives the places of their values. */
  list(names) {
    const values = names.map(() => element('span', {class: 'value'}));
    this.root.append(element(
      'ul', {class: 'pinned-keys'}, ...names.map((name, place) => element(
        'li', {title: name}, lineKey(place), leftToRight('key', name), values[place]))));
    return values;
  }

  fill(chart, plot, show, tell) {
    Object.assign(this, {chart, draws: show, tell});
    this.root.append(plot);
    return this;
  }

  show() {
    this.draws?.();
  }

  setCursor(step) {
    this.chart?.setCursor(step);
    this.tell?.(step);
  }

  resize() {
    this.chart?.resize();
  }

  draw() {
    this.chart?.draw();
  }

  destroy() {
    this.chart?.destroy();
  }
}
