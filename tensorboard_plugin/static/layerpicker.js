// The list at the left of the layers' view: which layers are drawn and how, and all to choose from.

import {element} from './dom.js';
import {count, whole} from './format.js';
import {swatch} from './layercolors.js';
import {pathFilter} from './search.js';

// A longer list is found through the search.
const MOST_LISTED = 300;
const MOVES = {ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10};

/** A path as dim beginning, which gives way where there is no room, and plain end. */
export function pathLabel(path) {
  const cut = path.lastIndexOf('/', path.lastIndexOf('/') - 1) + 1;
  return element(
    'span', {class: 'path', title: path.slice(0, 1000)},
    element('span', {class: 'path-start'}, path.slice(0, cut)),
    element('span', {class: 'path-end'}, path.slice(cut)));
}

export class LayerPicker {
  /** @param {function(string[])} onChoose Called with the paths that are chosen now. */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.heading = element('h2', {id: 'layers-drawn'});
    this.clear = element(
      'button', {class: 'link', type: 'button', onclick: () => this.#clear()}, 'Clear');
    this.legend = element('ul', {class: 'layer-legend', aria: {labelledby: 'layers-drawn'}});
    this.note = element('p', {class: 'quiet'});
    this.search = element('input', {
      type: 'search', class: 'find', placeholder: 'Find: text or /expression/', spellcheck: false,
      aria: {label: 'Find a layer'}, oninput: () => this.#list(),
    });
    this.list = element('div', {class: 'layer-list', role: 'group', aria: {label: 'Layers'}});
    this.listNote = element('p', {class: 'quiet', role: 'status'});
    this.root = element(
      'aside', {class: 'layer-picker', aria: {label: 'Choice of layers'}},
      element('div', {class: 'heading'}, this.heading, this.clear), this.legend, this.note,
      this.search, this.list, this.listNote);
    this.list.addEventListener('keydown', (event) => this.#key(event));
    this.search.addEventListener('keydown', (event) => {
      if (event.key !== 'ArrowDown' || !this.boxes.length) return;
      event.preventDefault();
      this.boxes[0].focus();
    });
    this.boxes = [];
  }

  /**
   * @param {string[]} paths All there are, in model order.
   * @param {string[]} chosen
   * @param {Map<string, number>} places Of those that are drawn.
   */
  show(paths, chosen, places) {
    const known = JSON.stringify(paths);
    Object.assign(this, {paths, chosen});
    if (known !== this.known) this.#list(); // Kept otherwise, with what is focused.
    this.known = known;
    for (const box of this.boxes) box.checked = chosen.includes(box.path);
    this.heading.textContent = count(places.size, 'layer');
    this.clear.hidden = !chosen.length;
    this.note.textContent = chosen.length > places.size
      ? `${whole(places.size)} of ${whole(chosen.length)} chosen layers are drawn, as more ` +
        'cannot be told apart. Remove some to see the others.' : '';
    this.#showLegend(places);
  }

  #showLegend(places) {
    const drawn = [...places.keys()];
    this.legend.replaceChildren(...drawn.map((path, index) => element(
      'li', {}, swatch(places.get(path)), pathLabel(path),
      element('button', {
        class: 'close', type: 'button', title: 'Remove', aria: {
          label: `Remove ${path.slice(0, 200)}`,
        }, onclick: () => this.#remove(path, index),
      }, '×'))));
  }

  #remove(path, index) {
    this.onChoose(this.chosen.filter((one) => one !== path));
    // The button is gone with its layer; another takes the focus once it is there.
    const buttons = this.legend.querySelectorAll('button');
    (buttons[Math.min(index, buttons.length - 1)] || this.search).focus();
  }

  #clear() {
    this.onChoose([]);
    this.search.focus();
  }

  #list() {
    const text = this.search.value.trim();
    const {matches, error} = pathFilter(text);
    const found = this.paths.filter(matches);
    const listed = found.slice(0, MOST_LISTED);
    this.boxes = listed.map((path, index) => {
      const box = element('input', {
        type: 'checkbox', checked: this.chosen.includes(path), tabIndex: index ? -1 : 0,
        onchange: () => this.onChoose(box.checked
          ? [...this.chosen, path] : this.chosen.filter((one) => one !== path)),
      });
      box.path = path;
      return box;
    });
    this.list.replaceChildren(...this.boxes.map((box) =>
      element('label', {class: 'layer-choice'}, box, pathLabel(box.path))));
    this.listNote.textContent = !found.length
      ? error || `No path contains “${text.slice(0, 60)}”.`
      : found.length > listed.length
        ? `The first ${whole(listed.length)} of ${count(found.length, 'layer')}: search for more.`
        : '';
  }

  // The list is one stop of the Tab key; arrows go through it.
  #key(event) {
    const at = this.boxes.indexOf(document.activeElement);
    const last = this.boxes.length - 1;
    const ends = {Home: 0, End: last};
    if (at < 0 || !(event.key in MOVES || event.key in ends)) return;
    event.preventDefault();
    const to = ends[event.key] ?? Math.max(0, Math.min(last, at + MOVES[event.key]));
    this.boxes[at].tabIndex = -1;
    this.boxes[to].tabIndex = 0;
    this.boxes[to].focus();
  }
}
