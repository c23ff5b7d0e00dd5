// The runs to compare, as check boxes.

import {element} from './dom.js';
import {MOST_RUNS, comparable} from './comparison.js';
import {swatch} from './layercolors.js';

// With more runs than these there is a box to search them.
const MOST_UNSEARCHED = 12;

export class RunChooser {
  /** @param {function(string[])} onChoose Called with the names of the runs chosen then. */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.search = element('input', {
      type: 'search', class: 'run-search', placeholder: 'Find a run', hidden: true,
      spellcheck: false, aria: {label: 'Find a run'}, oninput: () => this.#narrow(),
    });
    this.boxes = element('div', {class: 'run-boxes'});
    this.note = element('p', {class: 'run-note', role: 'status'});
    this.root = element(
      'fieldset', {class: 'run-chooser'},
      element('legend', {}, 'Runs'), this.search, this.boxes, this.note);
  }

  /**
   * @param {object[]} runs As the route `runs` has them.
   * @param {string[]} chosen Names.
   * @param {Map<string, number>} places Of the chosen ones, see `layercolors.js`.
   * @param {number} left How many more the address asks for.
   */
  show(runs, chosen, places, left) {
    const focused = this.boxes.contains(document.activeElement) && document.activeElement.value;
    const full = chosen.length >= MOST_RUNS;
    this.search.hidden = runs.length <= MOST_UNSEARCHED;
    this.boxes.replaceChildren(...runs.map((run) => {
      const {name} = run;
      const on = chosen.includes(name);
      const usable = comparable(run);
      const box = element('input', {
        type: 'checkbox', value: name, checked: on,
        disabled: !usable || (!on && full) || (on && chosen.length === 1),
        onchange: () => this.onChoose(
          box.checked ? [...chosen, name] : chosen.filter((one) => one !== name)),
      });
      return element(
        'label', {class: on ? 'run-box chosen' : 'run-box', title: name},
        box, on ? swatch(places.get(name)) : null, element('span', {class: 'run-name'}, name),
        usable ? null : element('span', {class: 'quiet'}, '(no record)'));
    }));
    this.note.textContent = full
      ? `At most ${MOST_RUNS} runs at once; take one away to add another.` +
        (left ? ` ${left} more are not shown.` : '')
      : '';
    this.#narrow();
    if (focused) {
      [...this.boxes.querySelectorAll('input')].find(({value}) => value === focused)?.focus();
    }
  }

  // Chosen runs stay in sight, whatever is looked for.
  #narrow() {
    const wanted = this.search.hidden ? '' : this.search.value.trim().toLowerCase();
    for (const label of this.boxes.children) {
      const {checked, value} = label.querySelector('input');
      label.hidden = !checked && !value.toLowerCase().includes(wanted);
    }
  }
}
