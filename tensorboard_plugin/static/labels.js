// The heatmap's labels as an ARIA tree. Only those in sight are elements, and the one that has the
// focus, so that ten thousand layers scroll as well as ten.

import {CANVAS_FONT, element} from './dom.js';
import {count} from './format.js';
import {brief, parted, shorten} from './paths.js';
import {groupName} from './tree.js';

/** Width of the labels, as in the style sheet. */
export const LABEL_WIDTH = 240;

const FONT = CANVAS_FONT.replace('11px', '12px');

// Labels beyond both ends of what is seen, so that fast scrolling shows no gaps.
const BEYOND = 6;

// Up to so many labels are measured; of more, those with at most so many letters fit.
const MEASURED = 2000;
const LETTERS = 34;

const key = ({row, group}) => (group ? `group ${group.prefix}` : `layer ${row}`);

export class Labels {
  /**
   * @param {{onChoose: function(number), onToggle: function(number)}} listeners Called with the
   *     place of a row: a layer is chosen, a group opened or collapsed.
   */
  constructor({onChoose, onToggle}) {
    this.onChoose = onChoose;
    this.onToggle = onToggle;
    this.root = element('div', {class: 'labels', role: 'tree', aria: {label: 'Layers'}});
    this.measure = document.createElement('canvas').getContext('2d');
    this.rows = [];
    this.nodes = new Map();
    this.active = 0;
    this.selected = -1;
    this.#listen();
  }

  /**
   * @param {Row[]} rows Of `tree.js`.
   * @param {string[]} paths Of the answer's variables.
   */
  show(rows, paths) {
    const held = this.root.contains(document.activeElement);
    const before = this.rows[this.active] && key(this.rows[this.active]);
    const kept = rows.findIndex((row) => key(row) === before);
    const grouped = rows.some(({group}) => group);
    this.active = kept < 0 ? 0 : kept;
    this.rows = rows;
    this.root.classList.toggle('grouped', grouped);
    this.texts = grouped
      ? rows.map((row) => parted(this.#name(row, paths).slice(row.prefix.length)))
      : this.#shortened(rows.map(({row}) => paths[row]));
    this.titles = rows.map((row) => this.#name(row, paths));
    this.root.replaceChildren();
    this.nodes.clear();
    if (!this.rowHeight) return;
    this.layout(this.rowHeight, this.top, this.height);
    if (held) this.focus(this.active);
  }

  /** Makes elements of the labels in a window `[top, top + height]` of all of them. */
  layout(rowHeight, top, height) {
    Object.assign(this, {rowHeight, top, height});
    this.root.style.height = `${rowHeight * this.rows.length}px`;
    const first = Math.max(0, Math.floor(top / rowHeight) - BEYOND);
    const end = Math.min(this.rows.length, Math.ceil((top + height) / rowHeight) + BEYOND);
    const wanted = new Set([this.active]);
    for (let place = first; place < end; place += 1) wanted.add(place);
    for (const [place, node] of this.nodes) {
      if (wanted.has(place)) continue;
      node.remove();
      this.nodes.delete(place);
    }
    // In the order of the rows, and without touching what is there, which may have the focus.
    let next = this.root.firstChild;
    for (const place of [...wanted].sort((a, b) => a - b)) {
      if (place >= this.rows.length) continue;
      let node = this.nodes.get(place);
      if (!node) {
        node = this.#make(place);
        this.nodes.set(place, node);
        this.root.insertBefore(node, next);
      }
      node.style.top = `${place * rowHeight}px`;
      next = node.nextSibling;
    }
  }

  /** Marks a row of the answer as the one whose lines are open; -1 for none. */
  select(row) {
    this.selected = row;
    for (const [place, node] of this.nodes) this.#mark(place, node);
  }

  /** Gives a row the focus and brings it into sight. */
  focus(place) {
    if (!this.rows[place]) return;
    if (this.nodes.has(this.active)) this.nodes.get(this.active).tabIndex = -1;
    this.active = place;
    this.layout(this.rowHeight, this.top, this.height);
    const node = this.nodes.get(place);
    node.tabIndex = 0;
    node.focus({preventScroll: true});
    node.scrollIntoView({block: 'nearest'});
  }

  #name({row, group}, paths) {
    return group ? groupName(group) : paths[row];
  }

  // To measure very many takes too long; style sheets cut what is too long all the same.
  #shortened(paths) {
    this.measure.font = FONT;
    const few = paths.length <= MEASURED;
    return shorten(paths, (text) => (few
      ? this.measure.measureText(text).width <= LABEL_WIDTH - 18 : text.length <= LETTERS));
  }

  #make(place) {
    const {row, group, open, level, place: nth, size} = this.rows[place];
    const [start, end] = this.texts[place].map((text) => brief(text));
    const title = this.titles[place];
    const layers = group ? `, ${count(group.rows.length, 'layer')}` : '';
    const node = element(
      'div',
      {class: group ? 'row group' : 'row', role: 'treeitem', title: title + layers,
        tabIndex: place === this.active ? 0 : -1,
        dataset: {place, row}, aria: {label: title + layers, level, posinset: nth, setsize: size}},
      group ? element('span', {class: 'twisty', aria: {hidden: true}}, open ? '▾' : '▸') : null,
      element('span', {class: 'path-start'}, start), element('span', {class: 'path-end'}, end));
    node.style.setProperty('--level', level - 1);
    if (group) node.setAttribute('aria-expanded', open);
    this.#mark(place, node);
    return node;
  }

  #mark(place, node) {
    const {row, group} = this.rows[place];
    if (group) return;
    node.classList.toggle('selected', row === this.selected);
    node.setAttribute('aria-selected', row === this.selected);
  }

  #listen() {
    this.root.addEventListener('click', (event) => {
      const node = event.target.closest('.row');
      if (node) this.act(Number(node.dataset.place));
    });
    this.root.addEventListener('keydown', (event) => this.#press(event));
  }

  /** Does what a click on a row does. */
  act(place) {
    this.focus(place);
    if (this.rows[place].group) this.onToggle(place);
    else this.onChoose(place);
  }

  #press(event) {
    const node = event.target.closest('.row');
    if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = Number(node.dataset.place);
    const {group, open} = this.rows[place];
    const page = Math.max(1, Math.floor(this.height / this.rowHeight) - 1);
    const last = this.rows.length - 1;
    const goes = {
      ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: last,
      PageDown: Math.min(last, place + page), PageUp: Math.max(0, place - page),
    };
    if (event.key in goes) this.focus(goes[event.key]);
    else if (event.key === 'Enter' || event.key === ' ') this.act(place);
    else if (event.key === 'ArrowRight') {
      if (group && open) this.focus(place + 1);
      else if (group) this.onToggle(place);
    } else if (event.key === 'ArrowLeft') {
      if (group && open) this.onToggle(place);
      else this.focus(this.#parent(place));
    } else return;
    event.preventDefault();
  }

  #parent(place) {
    const {level} = this.rows[place];
    for (let above = place - 1; above >= 0; above -= 1) {
      if (this.rows[above].level < level) return above;
    }
    return -1;
  }
}
