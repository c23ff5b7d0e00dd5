// The controls at the top: the run, and behind it those of the view.

import {element, field} from './dom.js';

export class Toolbar {
  /** @param {{onRun: function(string)}} listeners */
  constructor({onRun}) {
    this.run = element('select', {class: 'run', onchange: () => onRun(this.run.value)});
    this.root = element('header', {class: 'toolbar', hidden: true}, field('Run', this.run));
  }

  /** Offers runs; without any there is nothing to choose, and no toolbar. */
  showRuns(runs, chosen) {
    this.root.hidden = !runs.length;
    const names = JSON.stringify(runs.map(({name}) => name));
    if (names === this.names && chosen === this.run.value) return; // An open list stays open.
    this.names = names;
    this.run.replaceChildren(...runs.map(({name}) =>
      element('option', {value: name, selected: name === chosen}, name)));
  }
}
