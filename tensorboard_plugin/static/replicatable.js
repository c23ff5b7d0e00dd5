// The table of replicas: how long each takes, how long it waits, how far it is from the others.

import {element} from './dom.js';
import {exact, number} from './format.js';
import {percent, seconds} from './replicasummary.js';
import {HeaderRow} from './table.js';

const MOST_ROWS = 32;

// Fewer replicas are seen at once, and stay in order.
const FEW = 8;

const COLUMNS = [
  {key: 'replica', label: 'Replica', sortable: true, numeric: true,
    title: 'Number of the replica; click to sort'},
  {key: 'seconds', label: 'Step time', sortable: true, numeric: true,
    title: 'Mean time of a step on the replica’s process; click to sort'},
  {key: 'wait', label: 'In the reduction', sortable: true, numeric: true,
    title: 'Mean time from its own gradients to the reduced ones; click to sort'},
  {key: 'waiting', label: 'Share of step', sortable: true, numeric: true,
    title: 'Share of the step spent in the reduction; click to sort'},
  {key: 'norm', label: 'Gradient norm', sortable: true, numeric: true,
    title: 'Relative to the median over the replicas; click to sort'},
  {key: 'loss', label: 'Loss', sortable: true, numeric: true,
    title: 'Relative to the median over the replicas; click to sort'},
  {key: 'remarks', label: 'What stands out', sortable: false, numeric: false},
];

export class ReplicaTable {
  constructor() {
    this.sort = null;
    this.all = false;
    this.note = element('p', {class: 'quiet'});
    this.table = element('table', {class: 'replica-table', aria: {label: 'Replicas'}});
    this.header = new HeaderRow(COLUMNS, (sort) => {
      this.sort = sort;
      this.#draw();
    });
    this.body = element('tbody');
    this.table.append(element('thead', {}, this.header.root), this.body);
    this.more = element('button', {
      class: 'link', type: 'button', hidden: true,
      onclick: () => {
        this.all = true;
        this.#draw();
      },
    });
    this.root = element(
      'section', {class: 'replica-summary', aria: {label: 'Replicas in numbers'}},
      element('h2', {}, 'Replicas in numbers'), this.note,
      element('div', {class: 'scrolled-table'}, this.table), this.more);
  }

  /**
   * @param {object[]} rows As `summarize` gives them.
   * @param {string} note How the numbers were made.
   */
  show(rows, note) {
    this.rows = rows;
    this.note.textContent = note;
    this.#draw();
  }

  // Replicas with a remark come first, until another order is chosen.
  #draw() {
    const {sort} = this;
    const rank = ({remarks}) => (remarks.some(({kind}) => kind !== 'note') ? 0 : 1);
    const sorted = [...this.rows].sort((a, b) => {
      if (!sort) return this.rows.length > FEW ? rank(a) - rank(b) : 0;
      const [left, right] = [a[sort.key], b[sort.key]];
      if (Number.isNaN(left) || Number.isNaN(right)) {
        return Number(Number.isNaN(left)) - Number(Number.isNaN(right));
      }
      return sort.descending ? right - left : left - right;
    });
    const shown = this.all ? sorted : sorted.slice(0, MOST_ROWS);
    this.more.hidden = shown.length === sorted.length;
    this.more.textContent = `Show all ${sorted.length} replicas`;
    this.body.replaceChildren(...shown.map(cells));
  }
}

function cells({replica, seconds: time, wait, waiting, norm, loss, remarks}) {
  const marked = remarks.some(({kind}) => kind !== 'note');
  const value = (text, title = '') => element('td', {class: 'number', title}, text);
  const timed = (amount) => value(
    Number.isNaN(amount) ? '–' : seconds(amount, 3), `${exact(amount)} s`);
  const ratio = (amount) => value(
    Number.isNaN(amount) ? '–' : `${number(amount, 3)} ×`, `${exact(amount)} times the median`);
  return element(
    'tr', {class: marked ? 'marked' : '', dataset: {replica}},
    element('th', {scope: 'row', class: 'number'}, String(replica)),
    timed(time), timed(wait), value(percent(waiting)), ratio(norm), ratio(loss),
    element('td', {class: 'remarks'}, ...remarks.map(({kind, text}) =>
      element('span', {class: `remark ${kind}`}, text))));
}
