// Which rows the overview shows: the controls for filter and order, and what they and the groups
// that a person has opened or collapsed leave of the layers.

import {choices, choose, chooseAll} from './collapsed.js';
import {element, field} from './dom.js';
import {inOrder, pathFilter} from './search.js';
import {buildTree, flatRows, hasGroups, opened, treeRows} from './tree.js';

const ORDERS = {model: 'As in the model', highest: 'Highest first', lowest: 'Lowest first'};

export class RowChoice {
  /**
   * @param {Page} page Whose state is read and changed.
   * @param {function()} onChange Called when other rows are to be shown.
   */
  constructor(page, onChange) {
    this.page = page;
    this.onChange = onChange;
    this.filter = element('input', {
      type: 'search', class: 'filter', id: 'layer-filter', placeholder: 'Text or /expression/',
      spellcheck: false, autocomplete: 'off', aria: {describedby: 'layer-filter-problem'},
      title: 'Layers whose path contains a text, or matches a regular expression between ' +
        'slashes, such as /block_[01].*kernel/.',
      oninput: () => this.#note({filter: this.filter.value.trim()}),
    });
    this.problem = element(
      'span', {class: 'field-problem', id: 'layer-filter-problem', role: 'status'});
    this.order = element(
      'select',
      {class: 'order', onchange: () => this.#note({sort: this.order.value}),
        title: 'Sorted by the last finite value of each layer within the steps shown; layers ' +
          'without one come last. Sorted layers are not grouped.'},
      ...Object.entries(ORDERS).map(([value, text]) => element('option', {value}, text)));
    const search = field('Layers', this.filter);
    search.append(this.problem);
    search.classList.add('search');
    this.controls = [search, field('Order', this.order)];
  }

  /** Shows in the controls what the state says. */
  sync() {
    const {filter, sort} = this.page.state;
    if (this.filter.value.trim() !== filter) this.filter.value = filter;
    this.order.value = sort;
  }

  /**
   * The rows for an answer of `heatmap`.
   * @param {object} answer
   * @param {number} fitting How many rows fit on the screen.
   * @returns {{rows: Row[], layers: number, groups: boolean}} `layers` match the filter.
   */
  rows(answer, fitting) {
    const {variables} = answer;
    const {filter, sort, collapsed, layer} = this.page.state;
    const found = this.#matching(variables, filter);
    if (sort !== 'model') {
      const columns = answer.first_step.length;
      const sorted = inOrder(found, sort, answer.mean.values, columns);
      return {rows: flatRows(sorted), layers: found.length, groups: false};
    }
    if (!found.length) return {rows: [], layers: 0, groups: false};
    const tree = this.#tree(variables, found);
    const automatic = opened(tree, fitting);
    const chosen = choices(collapsed);
    // The layer whose lines are open is seen among the rows, too, where nobody has collapsed it.
    const row = layer === null ? -1 : variables.indexOf(layer);
    const open = (group) =>
      chosen(group.prefix) ?? (automatic.has(group) || (row >= 0 && group.rows.includes(row)));
    return {rows: treeRows(tree, open), layers: found.length, groups: hasGroups(tree)};
  }

  /** Opens or collapses one group. */
  toggle({prefix}, open) {
    this.#note({collapsed: choose(this.page.state.collapsed, prefix, open)});
  }

  /** Opens or collapses all groups. */
  toggleAll(open) {
    this.#note({collapsed: chooseAll(open)});
  }

  // An expression that is half typed leaves the rows as they were.
  #matching(variables, text) {
    const filter = pathFilter(text);
    this.problem.textContent = filter.error || '';
    this.filter.setAttribute('aria-invalid', filter.error !== null);
    if (!filter.error) this.matches = filter.matches;
    const matches = this.matches || (() => true);
    return variables.map((_, row) => row).filter((row) => matches(variables[row]));
  }

  #tree(variables, rows) {
    const key = rows.map((row) => variables[row]).join('\n');
    if (key !== this.treeKey) this.tree = buildTree(variables, rows);
    this.treeKey = key;
    return this.tree;
  }

  #note(changes) {
    this.page.note(changes);
    this.onChange();
  }
}
