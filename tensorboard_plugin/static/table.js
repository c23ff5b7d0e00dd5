// The head of a table that can be sorted: a button in each column, and what a screen reader hears.

import {element} from './dom.js';

const SIGNS = {none: '↕', descending: '↓', ascending: '↑'};

export class HeaderRow {
  /**
   * @param {Array<{key: string, label: string, title: ?string, numeric: boolean,
   *     sortable: boolean}>} columns
   * @param {function(?{key: string, descending: boolean})} onSort Called with what was chosen: at
   *     first the largest on top, then the smallest, then null, the table's own order.
   * @param {?{key: string, descending: boolean}} sort What is chosen.
   */
  constructor(columns, onSort, sort = null) {
    this.sort = sort;
    this.cells = columns.map(({key, label, title = '', numeric, sortable}) => {
      const cell = element('th', {scope: 'col', class: numeric ? 'number' : ''});
      if (!sortable) {
        cell.append(element('span', {title: title || label.slice(0, 500)}, label));
        return {key, cell, sign: null};
      }
      const sign = element('i', {class: 'sort-sign', aria: {hidden: true}});
      cell.append(element(
        'button', {type: 'button', class: 'sort', title: title || label.slice(0, 500),
          onclick: () => this.#choose(key, onSort)},
        element('span', {}, label), sign));
      return {key, cell, sign};
    });
    this.root = element('tr', {}, ...this.cells.map(({cell}) => cell));
    this.#mark();
  }

  #choose(key, onSort) {
    if (!this.sort || this.sort.key !== key) this.sort = {key, descending: true};
    else this.sort = this.sort.descending ? {key, descending: false} : null;
    this.#mark();
    onSort(this.sort);
  }

  #mark() {
    for (const {key, cell, sign} of this.cells) {
      if (!sign) continue;
      const order = !this.sort || this.sort.key !== key ? 'none'
        : this.sort.descending ? 'descending' : 'ascending';
      cell.setAttribute('aria-sort', order);
      sign.textContent = SIGNS[order];
    }
  }
}
