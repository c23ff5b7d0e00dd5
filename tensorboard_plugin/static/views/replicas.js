// Replicas: gradient norm, loss, step time and waiting of each, and which of them stands out.

import {askArrays, askJson} from '../api.js';
import {StepAxis} from '../axis.js';
import {element} from '../dom.js';
import {count, whole} from '../format.js';
import {message} from '../messages.js';
import {pinButton} from '../pins.js';
import {MOST_DRAWN, ReplicaChart, linesOfReplicas} from '../replicachart.js';
import {noiseWords} from '../replicanumbers.js';
import {summarize} from '../replicasummary.js';
import {ReplicaTable} from '../replicatable.js';
import {Stack, wantedColumns} from '../stack.js';
import {View} from './view.js';

const QUANTITIES = ['gradient_norm', 'loss', 'step_seconds', 'wait_seconds'];
const TAG = 'disttrain/replicas';
const HEADING_WIDTH = 190;

const SEVERITIES = {error: 'Error', warning: 'Warning', note: 'Note'};

export class Replicas extends View {
  constructor(page) {
    super(page, 'replicas', 'Replicas');
    this.#build();
  }

  async load(signal) {
    const {page, state} = this;
    const {run} = page;
    this.axis = null;
    state.rows = state.columns = 0;
    const recorded = run.replica_quantities.map(({name}) => name);
    const quantity = QUANTITIES.filter((name) => recorded.includes(name));
    if (!run.tags.includes(TAG) || !quantity.length) {
      page.notice(run.problems);
      page.say(run.replicas > 1 ? notRecordedMessage(run.replicas) : oneReplicaMessage());
      return;
    }
    this.columns = this.#wantedColumns();
    const {start, end} = state;
    const asked = {run: run.name, columns: this.columns, start, end};
    const [answer, steps] = await Promise.all([
      askArrays('replicas', {...asked, quantity}, signal), askArrays('steps', asked, signal),
    ]);
    page.notice([...answer.problems, ...steps.problems]);
    if (!answer.records && start !== null) {
      // A resumed run wrote other records where the zoom was.
      page.note({start: null, end: null});
      await this.load(signal);
      return;
    }
    if (answer.replicas < 2) {
      page.say(oneReplicaMessage());
      return;
    }
    page.say(null);
    this.#show(answer, steps);
    // Judging all of a run takes longer than drawing it, and nobody waits for it.
    this.#judge(run.name, signal);
  }

  setCursor(step) {
    this.stack.setCursor(step);
  }

  layout() {
    if (!this.axis) return;
    this.stack.layout();
    const wanted = this.#wantedColumns();
    const {axis, columns} = this;
    if (axis.records > Math.min(wanted, columns) &&
        Math.abs(wanted - columns) > 0.25 * columns) this.page.reload();
  }

  draw() {
    if (this.axis) this.stack.draw();
  }

  #wantedColumns() {
    const {page} = this;
    const rows = Math.max(this.replicas || page.run.replicas, 1) * QUANTITIES.length;
    const width = page.size.width - 56;
    return wantedColumns({width, limits: page.limits, rows, heading: HEADING_WIDTH});
  }

  #show(answer, steps) {
    const {state} = this;
    const axis = this.axis = new StepAxis(answer);
    const {replicas} = answer;
    this.replicas = replicas;
    const linesOf = (name) => linesOfReplicas(answer, name);
    this.heading.textContent = count(replicas, 'replica');
    const range = state.start === null ? ''
      : ` from ${whole(state.start)} to ${whole(state.end)}`;
    const most = Math.ceil(axis.records / Math.max(1, axis.columns));
    const mean = axis.bucketed ? ` Values are means of up to ${whole(most)} records.` : '';
    const cut = replicas > MOST_DRAWN
      ? ` The first ${whole(MOST_DRAWN)} replicas are drawn.` : '';
    this.summary.textContent = `${count(axis.records, 'recorded step')}${range}.${mean}${cut}`;
    this.zoomOut.hidden = state.start === null;
    this.noise.textContent = noiseWords(steps, answer);
    this.stack.show(axis, answer.quantities.map((quantity) =>
      this.#row(axis, quantity, linesOf(quantity.name))));
    const from = state.start === null && axis.columns > 4 ? 1 : 0;
    this.table.show(
      summarize(linesOf, replicas, from),
      'Times are means over the steps shown' +
        `${from ? ', without the first, which includes tracing' : ''}; ` +
        'norm and loss are relative to the median over the replicas. Time in the reduction ' +
        'is the transfer, and waiting for slower replicas: the slowest spends least.');
    state.rows = replicas;
    state.columns = axis.columns;
  }

  #row(axis, quantity, lines) {
    const {page, stack} = this;
    const chart = new ReplicaChart(axis, quantity, lines, page.tooltip);
    const {label} = chart.quantity;
    return {
      name: quantity.name, label, description: quantity.description, height: chart.height,
      pin: pinButton(page, {kind: 'replicas', name: quantity.name}, `${label} of the replicas`),
      make: (box) => chart.make(box, stack.listeners),
      readout: (column) => chart.readout(column),
    };
  }

  async #judge(run, signal) {
    if (this.judged !== run) this.findings.replaceChildren();
    let found;
    try {
      found = await askJson('health', {run}, signal);
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.findings.replaceChildren(element(
        'p', {class: 'quiet'}, `Whether replicas diverge could not be judged: ${error.message}`));
      return;
    }
    this.judged = run;
    const ours = found.findings.filter(({link}) => link.view === 'replicas');
    this.findings.replaceChildren(...ours.map((finding) => this.#finding(finding)));
  }

  #finding({severity, message: text, why, advice, link}) {
    const goes = link.start === null ? null : element(
      'button', {class: 'link', type: 'button',
        onclick: () => this.page.zoom([link.start, link.end])},
      `Show steps ${whole(link.start)} to ${whole(link.end)}`);
    return element(
      'li', {class: `replica-finding ${severity}`},
      element('p', {}, element('b', {}, SEVERITIES[severity] || 'Note'), ` ${text}`),
      element('p', {class: 'quiet'}, `${why} ${advice} `, goes));
  }

  #build() {
    const {page} = this;
    this.stack = new Stack({
      onCursor: (step) => this.setCursor(step), onRange: (range) => page.zoom(range),
    });
    this.stack.root.style.setProperty('--heading-width', `${HEADING_WIDTH}px`);
    this.table = new ReplicaTable();
    this.heading = element('h1', {});
    this.summary = element('span', {class: 'summary'});
    this.noise = element('p', {class: 'noise'});
    this.findings = element('ul', {class: 'replica-findings', aria: {label: 'Findings'}});
    this.zoomOut = element(
      'button', {class: 'link', type: 'button', hidden: true, onclick: () => page.zoom(null)},
      'Show all steps');
    this.root.append(element(
      'div', {class: 'view-scroller'},
      this.findings,
      element(
        'div', {class: 'replicas-head'}, this.heading,
        element('p', {class: 'quiet'}, this.summary, ' ', this.zoomOut), this.noise),
      this.stack.root, this.table.root));
    this.controls.append(element('p', {class: 'hint'}, 'Drag across steps to zoom.'));
  }
}

function oneReplicaMessage() {
  return message(
    'empty', 'This run has one replica',
    ['Here several are compared: their gradient norms, losses, step times and waiting. Train on ' +
      'more than one device or process:'],
    {
      code: 'trainer = disttrain.Trainer(..., replication="mirrored",\n' +
        '                            telemetry=disttrain.Telemetry(per_replica=True))',
      after: 'With one replica there is nothing to wait for; the overview has its loss and norms.',
    });
}

function notRecordedMessage(replicas) {
  return message(
    'empty', 'Nothing was recorded of the single replicas',
    [`The run has ${count(replicas, 'replica')}, but says nothing of each one. Ask for it:`],
    {
      code: 'trainer = disttrain.Trainer(..., telemetry=disttrain.Telemetry(per_replica=True))',
      after: 'per_replica="variables" also records the local gradient norm of each variable.',
    });
}
