// The table of what weights and slots take: for the run as a whole, and by block and layer.

import {element} from './dom.js';
import {bytes, count, number, whole} from './format.js';
import {sizesOf, sumOf} from './memory.js';
import {HeaderRow} from './table.js';
import {buildTree} from './tree.js';

// More slots than these share one column.
const MOST_SLOTS = 5;

// Rows of one block that are shown before the rest is asked for.
const MOST_ROWS = 100;

const INDENT = 18;

export class MemoryTable {
  constructor() {
    this.open = new Set();
    this.more = new Set();
    this.sort = null;
    this.sentence = element('p', {class: 'memory-sentence'});
    this.bar = element('div', {class: 'memory-bar', role: 'img'});
    this.table = element(
      'table', {class: 'memory', aria: {label: 'Memory by block and layer'}});
    this.note = element('p', {class: 'quiet'});
    this.root = element(
      'section', {class: 'optimizer-memory', aria: {label: 'Memory'}},
      element('h2', {}, 'Memory'), this.sentence, this.bar,
      element('div', {class: 'scrolled-table'}, this.table), this.note);
  }

  /**
   * @param {object[]} variables As the route `variables` answers.
   * @param {string} optimizer Its name.
   * @param {number} replicas Each of which holds all of it.
   */
  show(variables, optimizer, replicas) {
    const {names, sizes, unknown} = sizesOf(variables);
    Object.assign(this, {names, sizes});
    this.root.hidden = !sizes.length;
    this.all = sumOf(sizes, names.length);
    this.tree = buildTree(variables.map(({path}) => path), sizes.map((_, row) => row));
    this.#say(optimizer, unknown, replicas);
    this.#columns();
    this.#draw();
  }

  #say(optimizer, unknown, replicas) {
    const {weights, total} = this.all;
    const slots = total - weights;
    const kept = slots > 0 && weights > 0
      ? `${optimizer} keeps ${(slots / weights).toFixed(1)} times the weights: `
      : `${optimizer} keeps nothing beside the weights: `;
    const sum = slots > 0
      ? `${bytes(weights)} of weights and ${bytes(slots)} of slots, ${bytes(total)} in all`
      : `${bytes(weights)} in all`;
    const where = replicas > 1 ? ', on each replica' : '';
    this.sentence.textContent = `${kept}${sum}${where}.`;
    this.note.textContent = [
      `Of the ${count(this.sizes.length, 'variable')} that the run records; gradients, ` +
        'activations and what is not trained come on top.',
      unknown ? `The size of ${count(unknown, 'variable')} is not known and counts as 0.` : '',
    ].join(' ').trim();
    const parts = [['Weights', weights], ...this.names.map((n, i) => [n, this.all.slots[i]])]
      .filter(([, size]) => size > 0);
    this.bar.setAttribute('aria-label', parts.map(([name, size]) =>
      `${name.slice(0, 60)} ${bytes(size)}, ${percent(size, total)}`).join('; '));
    this.bar.replaceChildren(...parts.map(([name, size], index) => {
      const title = `${name.slice(0, 500)}: ${bytes(size)}`;
      const part = element(
        'div', {class: `memory-part part-${index % 4}`, title},
        element('span', {}, name), element('b', {}, `${bytes(size)} · ${percent(size, total)}`));
      part.style.flexGrow = size / total;
      return part;
    }));
  }

  #columns() {
    const few = this.names.length <= MOST_SLOTS;
    const slots = few
      ? this.names.map((name, index) => ({
        key: `slot ${index}`, label: name, value: (size) => size.slots[index], show: bytes,
      }))
      : [{
        key: 'slots', label: 'Slots', value: (size) => size.total - size.weights, show: bytes,
      }];
    this.columns = [
      {key: 'path', label: 'Block or layer'},
      {key: 'parameters', label: 'Parameters', value: (size) => size.parameters, show: whole},
      {key: 'weights', label: 'Weights', value: (size) => size.weights, show: bytes},
      ...slots,
      {key: 'total', label: 'Total', value: (size) => size.total, show: bytes},
      {key: 'share', label: 'Share'},
    ];
    if (!this.columns.some(({key}) => this.sort && key === this.sort.key)) this.sort = null;
    this.header = new HeaderRow(this.columns.map((column) => ({
      ...column, numeric: column.key !== 'path', sortable: Boolean(column.value),
    })), (sort) => {
      this.sort = sort;
      this.#draw();
    }, this.sort);
  }

  #draw() {
    const focused = document.activeElement && document.activeElement.dataset.block;
    const body = element('tbody');
    const sum = element('tr', {class: 'sum'}, ...this.#cells('All', this.all, 0, null));
    body.append(sum);
    this.#append(body, this.tree.items, '', 0);
    this.table.replaceChildren(element('thead', {}, this.header.root), body);
    if (focused !== undefined && focused !== null) {
      const buttons = [...this.table.querySelectorAll('button[data-block]')];
      const same = buttons.find(({dataset}) => dataset.block === focused);
      if (same) same.focus();
    }
  }

  #append(body, items, prefix, depth) {
    const sized = items.map((item) => ({item, size: this.#sizeOf(item)}));
    const column = this.sort && this.columns.find(({key}) => key === this.sort.key);
    if (column) {
      const sign = this.sort.descending ? -1 : 1;
      sized.sort((a, b) => sign * (column.value(a.size) - column.value(b.size)));
    }
    const key = `${depth} ${prefix}`;
    const shown = this.more.has(key) ? sized : sized.slice(0, MOST_ROWS);
    for (const {item, size} of shown) {
      const path = item.items ? item.prefix : this.sizes[item.row].path;
      const name = path.startsWith(prefix) ? path.slice(prefix.length) || path : path;
      body.append(element(
        'tr', {}, ...this.#cells(name, size, depth, item.items ? item : null, path)));
      if (item.items && this.open.has(item.prefix)) {
        this.#append(body, item.items, item.prefix, depth + 1);
      }
    }
    if (shown.length < sized.length) {
      const button = element('button', {
        class: 'link', type: 'button',
        onclick: () => {
          this.more.add(key);
          this.#draw();
        },
      }, `Show ${whole(sized.length - shown.length)} more`);
      const cell = element('td', {colSpan: this.columns.length}, button);
      cell.style.paddingLeft = `${8 + (depth + 1) * INDENT}px`;
      body.append(element('tr', {}, cell));
    }
  }

  #sizeOf(item) {
    if (!item.items) return this.sizes[item.row];
    return sumOf(item.rows.map((row) => this.sizes[row]), this.names.length);
  }

  #cells(name, size, depth, group, path = name) {
    const open = group !== null && this.open.has(group.prefix);
    const title = path.slice(0, 2000);
    const text = group ? `${name.replace(/[/_]+$/, '') || name}` : name;
    const label = group
      ? element(
        'button', {class: 'block', type: 'button', title, dataset: {block: group.prefix},
          aria: {expanded: open}, onclick: () => this.#toggle(group.prefix)},
        element('i', {class: 'arrow', aria: {hidden: true}}, open ? '▾' : '▸'),
        element('span', {}, text))
      : element('span', {class: 'leaf', title}, text);
    const head = element('th', {scope: 'row'}, label);
    head.style.paddingLeft = `${8 + depth * INDENT}px`;
    const cells = this.columns.filter(({value}) => value).map(({value, show}) =>
      element('td', {class: 'number'}, show(value(size))));
    const share = element('td', {class: 'share'});
    const fill = element('i', {class: 'share-fill', aria: {hidden: true}});
    fill.style.width = `${this.all.total ? (100 * size.total) / this.all.total : 0}%`;
    share.append(
      element('span', {class: 'share-track', aria: {hidden: true}}, fill),
      element('span', {}, percent(size.total, this.all.total)));
    return [head, ...cells, share];
  }

  #toggle(prefix) {
    if (!this.open.delete(prefix)) this.open.add(prefix);
    this.#draw();
  }
}

/** A part of a whole as "12.3%". */
export function percent(part, all) {
  if (!(all > 0)) return '–';
  const value = (100 * part) / all;
  if (value > 0 && value < 0.1) return '< 0.1%';
  return `${value.toFixed(1)}%`;
}
