// The optimizer: how it is configured, what it did over the steps, and what it takes in memory.

import {askArrays, askJson} from '../api.js';
import {StepAxis} from '../axis.js';
import {configurationTable, optimizerName} from '../optimizertable.js';
import {element} from '../dom.js';
import {EventLine, GLYPHS} from '../eventline.js';
import {count, exact, number, whole} from '../format.js';
import {MemoryTable, percent} from '../memorytable.js';
import {pinButton} from '../pins.js';
import {Stack, rowOf, wantedColumns} from '../stack.js';
import {View} from './view.js';

const CHARTS = [
  'loss', 'learning_rate', 'gradient_norm', 'clip_factor', 'loss_scale', 'examples_per_second',
];

const UNITS = {examples_per_second: 'examples/s'};

const CHART_HEIGHT = 112;
const HEADING_WIDTH = 150;
const ASIDE_WIDTH = 340;

// JSON has texts for what is not finite.
const finite = (value) => (typeof value === 'string' ? Number(value) : value);
const times = (amount) => (amount === 1 ? 'once' : `${whole(amount)} times`);

export class Optimizer extends View {
  constructor(page) {
    super(page, 'optimizer', 'Optimizer');
    this.#build();
  }

  async load(signal) {
    const {page, state} = this;
    const run = page.run.name;
    const {start, end} = state;
    this.columns = this.#wantedColumns();
    const [steps, {variables}, optimizer] = await Promise.all([
      askArrays('steps', {run, start, end, columns: this.columns}, signal),
      askJson('variables', {run}, signal),
      askJson('optimizer', {run}, signal),
    ]);
    if (!steps.records && start !== null) {
      // A resumed run wrote other records where the zoom was.
      page.note({start: null, end: null});
      await this.load(signal);
      return;
    }
    page.notice([...steps.problems, ...optimizer.problems]);
    page.say(null);
    this.#show(steps, variables, optimizer);
  }

  setCursor(step) {
    this.stack.setCursor(step);
  }

  layout() {
    this.stack.layout();
    const wanted = this.#wantedColumns();
    const {axis, columns} = this;
    if (axis && axis.records > Math.min(wanted, columns) &&
        Math.abs(wanted - columns) > 0.25 * columns) this.page.reload();
  }

  draw() {
    this.stack.draw();
  }

  #wantedColumns() {
    const {page} = this;
    const rows = page.run.quantities.length;
    const width = page.size.width - ASIDE_WIDTH - 56;
    return wantedColumns({width, limits: page.limits, rows, heading: HEADING_WIDTH});
  }

  #show(steps, variables, optimizer) {
    const {state} = this;
    const axis = this.axis = new StepAxis(steps);
    const newest = optimizer.optimizers.at(-1);
    const name = newest ? optimizerName(newest.configuration) : 'Optimizer';
    this.heading.textContent = name;
    const range = state.start === null ? ''
      : ` from ${whole(state.start)} to ${whole(state.end)}`;
    const most = Math.ceil(axis.records / Math.max(1, axis.columns));
    const mean = axis.bucketed
      ? ` A point is the mean of up to ${whole(most)} records, the band their extremes.` : '';
    this.summary.textContent = `${count(axis.records, 'recorded step')}${range}.${mean}`;
    this.zoomOut.hidden = state.start === null;
    this.#say(steps, optimizer, newest);
    const drawn = this.#drawn(steps, optimizer);
    const marks = marksOf(optimizer);
    // A switched optimizer is named once, at the top.
    const unnamed = marks.map((mark) => ({...mark, label: null}));
    this.stack.show(axis, drawn.map((quantity, index) =>
      this.#row(steps, axis, quantity, index ? unnamed : marks)));
    this.nothing.hidden = drawn.length > 0;
    this.aside.replaceChildren(...configurations(optimizer.optimizers));
    this.memory.show(variables, name, this.page.run.replicas);
    state.rows = drawn.length;
    state.columns = axis.columns;
  }

  // What never changed is said in a line; a flat chart would only take room.
  #drawn(steps, {settings}) {
    return CHARTS.map((name) => steps.quantities.find((quantity) => quantity.name === name))
      .filter((quantity) => quantity &&
        !(quantity.name in settings && settings[quantity.name].constant));
  }

  #say(steps, {settings, clipped, events, optimizers}, newest) {
    const said = [];
    const {configuration = {}} = newest || {};
    for (const [name, label] of [['learning_rate', 'Learning rate'],
      ['clip_factor', 'Clip factor'], ['loss_scale', 'Loss scale']]) {
      if (!settings[name] || !settings[name].constant) continue;
      const value = finite(settings[name].first);
      if (name === 'clip_factor' && value === 1) {
        said.push(configuration.clip ? 'The clip never acted.' : 'Nothing is clipped.');
      } else if (name === 'loss_scale' && value === 1) said.push('No loss scale acts.');
      else said.push(`${label} ${number(value)} throughout.`);
    }
    const known = steps.quantities.map(({name}) => name);
    const missing = CHARTS.filter((name) => !known.includes(name));
    if (missing.length) said.push(`Not recorded: ${missing.join(', ').replaceAll('_', ' ')}.`);
    if (clipped && clipped.clipped) {
      const share = percent(clipped.clipped, clipped.of);
      said.push(`The clip acted in ${share} of all records.`);
    }
    this.quiet.textContent = said.join(' ');
    const counts = [
      ['lowered', (amount) => `loss scale lowered ${times(amount)}`],
      ['raised', (amount) => `loss scale raised ${times(amount)}`],
      ['skipped', (amount) => `${count(amount, 'step')} skipped`],
    ].filter(([kind]) => events[kind] && events[kind].steps.length)
      .map(([kind, text]) => [kind, text(events[kind].count)]);
    if (optimizers.length > 1) {
      counts.push(['switched', `optimizer switched ${times(optimizers.length - 1)}`]);
    }
    this.events.hidden = !counts.length;
    this.events.replaceChildren(...counts.map(([kind, text]) => element(
      'li', {dataset: {kind}}, element('i', {aria: {hidden: true}}, GLYPHS[kind]), text)));
  }

  #row(steps, axis, quantity, marks) {
    const index = steps.quantities.indexOf(quantity);
    const values = rowOf(steps, index, axis.columns);
    const own = marks.filter(({kind}) =>
      quantity.name === 'loss_scale' || kind === 'skipped' || kind === 'switched');
    return {
      name: quantity.name, label: unitsOf(quantity), description: quantity.description,
      height: CHART_HEIGHT,
      pin: pinButton(
        this.page, {kind: 'run', name: quantity.name}, `${quantity.label} of the run`),
      make: (box) => {
        const line = new EventLine(box, {showSteps: false, ...this.stack.listeners}, own);
        return {
          show: () => line.show(axis, quantity, values, axis),
          setCursor: (step) => line.setCursor(step),
          draw: () => line.draw(),
          resize: () => line.resize(),
          destroy: () => line.destroy(),
        };
      },
      readout: (column) => readout(values, axis, column),
    };
  }

  #build() {
    const {page} = this;
    this.stack = new Stack({
      onCursor: (step) => this.setCursor(step), onRange: (range) => page.zoom(range),
    });
    this.stack.root.style.setProperty('--heading-width', `${HEADING_WIDTH}px`);
    this.memory = new MemoryTable();
    this.heading = element('h1', {});
    this.summary = element('span', {class: 'summary'});
    this.quiet = element('p', {class: 'constant-settings'});
    this.events = element('ul', {class: 'event-counts', hidden: true, aria: {label: 'Events'}});
    this.nothing = element(
      'p', {class: 'quiet', hidden: true},
      'The run recorded nothing about its steps, so there is nothing to draw over them.');
    this.zoomOut = element(
      'button', {class: 'link', type: 'button', hidden: true, onclick: () => page.zoom(null)},
      'Show all steps');
    this.aside = element('aside', {class: 'configurations', aria: {label: 'Configuration'}});
    this.root.append(element(
      'div', {class: 'view-scroller'},
      element(
        'div', {class: 'optimizer-head'},
        this.heading, element('p', {class: 'quiet'}, this.summary, ' ', this.zoomOut),
        this.quiet, this.events),
      element('div', {class: 'optimizer-columns'},
        element('div', {class: 'optimizer-charts'}, this.nothing, this.stack.root), this.aside),
      this.memory.root));
    this.controls.append(element(
      'p', {class: 'hint'},
      'Drag across steps to zoom; marks show skipped steps and the loss scale.'));
  }
}

function unitsOf({name, label}) {
  return name in UNITS ? `${label}, ${UNITS[name]}` : label;
}

function marksOf({events, optimizers}) {
  const marks = Object.entries(events).flatMap(([kind, {steps}]) =>
    steps.map((step) => ({kind, step})));
  const switched = optimizers.slice(1).map(({configuration, first_step: step}) =>
    ({kind: 'switched', step, label: optimizerName(configuration).slice(0, 30)}));
  return [...marks, ...switched];
}

// The value in a column, or the last that there is.
function readout({minimum, mean, maximum, nonfinite}, axis, column) {
  if (column === null) {
    const last = mean.findLast((value) => Number.isFinite(value));
    return [last === undefined ? '–' : number(last)];
  }
  if (!nonfinite[column] && Number.isNaN(mean[column])) return ['not recorded'];
  const value = nonfinite[column] && !axis.bucketed ? minimum[column] : mean[column];
  const found = [exact(value)];
  if (minimum[column] < maximum[column]) {
    found.push(element(
      'small', {}, `${number(minimum[column])} to ${number(maximum[column])}`));
  }
  if (nonfinite[column] && axis.bucketed) {
    found.push(element('small', {}, `${whole(nonfinite[column])} not finite`));
  }
  return found;
}

function configurations(optimizers) {
  if (!optimizers.length) {
    return [
      element('h2', {}, 'Configuration'),
      element('p', {class: 'quiet'}, 'The run does not name its optimizer.'),
    ];
  }
  if (optimizers.length === 1) {
    return [element('h2', {}, 'Configuration'), configurationTable(optimizers[0].configuration)];
  }
  const shown = [...optimizers].reverse().map((one, index) => element(
    'details', {open: index === 0},
    element(
      'summary', {}, element('b', {}, optimizerName(one.configuration)),
      ` from step ${whole(one.first_step)} to ${whole(one.last_step)}`),
    configurationTable(one.configuration)));
  return [element('h2', {}, 'Configurations, the newest first'), ...shown];
}
