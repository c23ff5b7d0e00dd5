// The overview: a statistic of all layers by steps, the run's own lines below, and a layer beside.

import {askArrays, askJson} from '../api.js';
import {StepAxis} from '../axis.js';
import {Caption} from '../caption.js';
import {colorScale} from '../colors.js';
import {element, field} from '../dom.js';
import {EventStrip} from '../eventstrip.js';
import {groupTip} from '../grouptip.js';
import {askCells, askExact} from '../heatasks.js';
import {kinds} from '../heatcells.js';
import {Heatmap, LABEL_WIDTH} from '../heatmap.js';
import {LayerPanel, panelOrder} from '../layer.js';
import {noMatchMessage, noRecordsMessage} from '../messages.js';
import {within} from '../preview.js';
import {RowChoice} from '../rowchoice.js';
import {StepLines} from '../steps.js';
import {View} from './view.js';

const DEFAULT_STATISTIC = 'update_ratio';

// What nobody has asked for waits so long for the next zoom, which would have to wait for it.
const REST_MILLISECONDS = 150;

// The panel's plots are narrower than this many pixels.
const PANEL_COLUMNS = 400;

export class Overview extends View {
  constructor(page) {
    super(page, 'overview', 'Overview');
    this.#build();
  }

  get fields() {
    return ['run', 'start', 'end', 'statistic'];
  }

  async load(signal) {
    const {page, state} = this;
    const {run} = page;
    if (this.layerRequest) this.layerRequest.abort();
    clearTimeout(this.rest);
    this.#fillStatistics(run);
    this.choice.sync();
    const columns = this.#wantedColumns(run.variables);
    const {statistic, start, end} = state;
    const asked = {run: run.name, columns, start, end};
    const cells = {...asked, statistic};
    const heatAsked = askCells(
      cells, signal, (sample) => this.#showSample(sample, columns, stepsAsked));
    const stepsAsked = askArrays('steps', asked, signal);
    stepsAsked.catch(() => {}); // Told below, where it is waited for.
    // While the server is at work.
    if (this.heat && this.heat.run !== run.name) this.#clear();
    else this.#preview();
    const heat = await heatAsked;
    Object.assign(this, {heat, columns, axis: new StepAxis(heat)});
    page.notice(heat.problems);
    if (!heat.records && start !== null) {
      // A resumed run wrote other records where the zoom was.
      page.note({start: null, end: null});
      await this.load(signal);
      return;
    }
    if (!heat.records) {
      page.say(noRecordsMessage(false));
      return;
    }
    // The cells wait for nothing else.
    this.#show();
    performance.mark('disttrain:cells');
    this.#showSteps(await stepsAsked);
    this.exactAsked = () => askExact(heat, cells, signal);
    if (start === null) this.whole = {heat, steps: this.steps};
    this.range = String([start, end]);
    page.notice([...heat.problems, ...this.steps.problems]);
    if (state.layer !== null) await this.#loadLayer(signal);
  }

  idle() {
    clearTimeout(this.rest);
    if (this.page.view !== this || !this.heat) return;
    this.rest = setTimeout(() => this.#askRest().catch(() => {}), REST_MILLISECONDS);
  }

  // The exact numbers of what is painted, and what makes a layer open at once.
  async #askRest() {
    const {exactAsked} = this;
    this.exactAsked = null;
    if (exactAsked) await exactAsked();
    this.state.exact = 'minimum' in this.heat;
    if (this.hovered) this.#hover(this.hovered);
    await this.#askVariables();
  }

  setCursor(step) {
    const {strip, heatmap, stepLines, panel} = this;
    for (const part of [strip, heatmap, stepLines, panel]) part.setCursor(step);
  }

  layout() {
    this.#fit();
    if (this.#misfit()) this.page.reload();
  }

  draw() {
    const {strip, heatmap, caption: {legend}, stepLines, panel} = this;
    for (const part of [strip, heatmap, legend, stepLines, panel]) part.draw();
  }

  async #loadLayer(signal) {
    const variables = await this.#askVariables();
    signal.throwIfAborted();
    const variable = variables.find(({path}) => path === this.state.layer);
    if (!variable) {
      this.#closeLayer();
      return;
    }
    this.panel.open(variable);
    this.#fit();
    this.heatmap.reveal(this.heat.variables.indexOf(variable.path));
    if (this.#misfit()) {
      await this.page.reload();
      return;
    }
    const {run} = this.page;
    const {start, end} = this.state;
    const answer = await askArrays('series', {
      run: run.name, variable: variable.path, columns: PANEL_COLUMNS, start, end,
      statistic: panelOrder(run.statistics).map(({name}) => name),
    }, signal);
    this.panel.show(answer, this.axis);
  }

  // What the run's variables are, asked for once until the run changes.
  #askVariables() {
    const {name, parts, variables: amount} = this.page.run;
    const key = JSON.stringify([name, parts, amount]);
    if (key !== this.variablesKey) {
      this.variablesKey = key;
      this.variables = askJson('variables', {run: name}).then(({variables}) => variables);
      this.variables.catch(() => {
        this.variablesKey = null;
      });
    }
    return this.variables;
  }

  async #openLayer(path) {
    this.page.note({layer: path});
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
    const row = this.heat.variables.indexOf(this.state.layer);
    this.page.note({layer: null});
    this.panel.close();
    this.heatmap.select(-1);
    this.#fit();
    if (this.#misfit()) this.page.reload();
    this.heatmap.reveal(row, true);
  }

  #show() {
    const {heat, axis, state} = this;
    this.scale = colorScale(heat.statistic, heat.mean.values);
    this.caption.legend.show(this.scale, heat.statistic, kinds(heat, this.scale));
    state.columns = axis.columns;
    state.sampled = Boolean(heat.sampled);
    state.exact = 'minimum' in heat;
    this.hovered = null;
    this.#showRows();
  }

  // Of a large run some records are here at once. That they are not all is said above them.
  async #showSample(heat, columns, stepsAsked) {
    Object.assign(this, {heat, columns, axis: new StepAxis(heat)});
    this.#show();
    performance.mark('disttrain:sample');
    this.#showSteps(await stepsAsked);
  }

  // What the filter, the order and the groups leave of the answer.
  #showRows() {
    const {heat, axis, state, page} = this;
    if (!heat || !heat.records) return;
    page.say(null);
    const least = StepLines.height + EventStrip.mostHeight + 8;
    const fitting = Heatmap.fitting(this.body.clientHeight - least);
    const {rows, layers, groups} = this.choice.rows(heat, fitting);
    state.rows = layers;
    if (!rows.length) {
      page.say(noMatchMessage(state.filter));
      return;
    }
    this.heatmap.show(heat, axis, this.scale, rows);
    this.heatmap.select(heat.variables.indexOf(state.layer));
    this.caption.show(heat, axis, layers, state, groups);
    this.#fit();
  }

  #showSteps(steps) {
    this.steps = steps;
    const axis = new StepAxis(steps);
    this.strip.show(steps, axis, this.axis);
    this.stepLines.show(steps, axis, this.axis);
    this.#fit();
  }

  // Shows of another range what is here already, until the server has told the detail.
  #preview() {
    const {start, end, statistic} = this.state;
    const {heat, steps, whole, range} = this;
    if (range === String([start, end])) return;
    // All steps are in an answer to all steps alone.
    for (const known of start === null ? [whole] : [{heat, steps}, whole]) {
      if (!known?.heat || !known.steps || known.heat.statistic.name !== statistic) continue;
      const [cells, lines] = [known.heat, known.steps].map((one) => within(one, start, end));
      if (!cells || !lines) continue;
      Object.assign(this, {heat: cells, axis: new StepAxis(cells)});
      this.#show();
      this.#showSteps(lines);
      performance.mark('disttrain:preview');
      return;
    }
  }

  // Nothing of one run stays while another is read.
  #clear() {
    this.whole = null;
    this.strip.clear();
    this.stepLines.clear();
  }

  // As many columns as pixels, within the server's limits.
  #wantedColumns(variables) {
    const {page} = this;
    const taken = LABEL_WIDTH + this.panel.root.offsetWidth + 40;
    const pixels = Math.max(100, page.size.width - taken);
    const {columns, cells} = page.limits;
    return Math.max(1, Math.min(pixels, columns, Math.floor(cells / Math.max(1, variables))));
  }

  #fit() {
    if (!this.heat || !this.root.clientHeight) return;
    const room = this.body.clientHeight - this.strip.height;
    const least = StepLines.height;
    const rows = this.heatmap.shown.length;
    const lines = Math.max(least, Math.min(2 * least, room - 24 - 28 * rows));
    this.heatmap.layout(Math.max(120, room - lines - 8));
    this.strip.layout(this.heatmap.width, this.heatmap.insets);
    this.stepLines.layout(lines, this.heatmap.insets);
    this.panel.resize();
  }

  // Whether far more or fewer columns than there are would suit the page's size.
  #misfit() {
    if (!this.axis) return false;
    const wanted = this.#wantedColumns(this.page.run.variables);
    return this.axis.records > Math.min(wanted, this.columns) &&
      Math.abs(wanted - this.columns) > 0.25 * this.columns;
  }

  #hover(cell) {
    this.hovered = cell;
    if (cell === null) {
      this.page.tooltip.hide();
      this.setCursor(null);
      return;
    }
    const {heat, axis, page: {tooltip}} = this;
    const {group, column, x, y} = cell;
    if (group) tooltip.place(x, y, ...groupTip(heat, axis, group, column));
    else tooltip.show(cell, heat, axis);
    this.setCursor(axis.middle[column]);
  }

  #fillStatistics({statistics}) {
    const names = statistics.map(({name}) => name);
    if (names.length && !names.includes(this.state.statistic)) {
      this.state.statistic = names.includes(DEFAULT_STATISTIC) ? DEFAULT_STATISTIC : names[0];
    }
    this.statistic.replaceChildren(...statistics.map(({name, label}) =>
      element('option', {value: name, selected: name === this.state.statistic}, label)));
  }

  #build() {
    const {page} = this;
    const onCursor = (step) => this.setCursor(step);
    const onZoom = (low, high) => {
      const range = this.axis.recordsWithin(low, high);
      if (range) page.zoom(range);
    };
    this.statistic = element('select', {
      class: 'statistic', onchange: () => page.change({statistic: this.statistic.value}),
    });
    this.choice = new RowChoice(page, () => this.#showRows());
    this.controls.classList.add('overview-controls');
    this.controls.append(
      field('Statistic', this.statistic), ...this.choice.controls,
      element('p', {class: 'hint'}, 'Click a layer for its lines, drag to zoom.'));
    this.heatmap = new Heatmap({
      onHover: (cell) => this.#hover(cell),
      onSelect: (row) => this.#openLayer(this.heat.variables[row]),
      onToggle: (group, open) => this.choice.toggle(group, open),
      onZoom,
    });
    this.strip = new EventStrip({tooltip: page.tooltip, onCursor});
    this.stepLines = new StepLines({onCursor, onZoom});
    this.panel = new LayerPanel({page, onClose: () => this.#closeLayer(), onCursor, onZoom});
    this.caption = new Caption(() => page.zoom(null), (open) => this.choice.toggleAll(open));
    this.body = element(
      'div', {class: 'charts'}, this.strip.root, this.heatmap.root, this.stepLines.root);
    this.root.append(
      this.caption.root, element('div', {class: 'body'}, this.body, this.panel.root));
  }
}
