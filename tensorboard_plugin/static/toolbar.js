// The controls at the top: which run, which statistic, which layers.

import {element, field} from './dom.js';

export class Toolbar {
  /**
   * @param {{onRun: function(string), onStatistic: function(string), onFilter: function(string)}}
   *     listeners
   */
  constructor({onRun, onStatistic, onFilter}) {
    this.run = element('select', {class: 'run', onchange: () => onRun(this.run.value)});
    this.statistic = element(
      'select', {class: 'statistic', onchange: () => onStatistic(this.statistic.value)});
    this.filter = element('input', {
      type: 'search', class: 'filter', placeholder: 'Filter by path', spellcheck: false,
      oninput: () => onFilter(this.filter.value.trim()),
    });
    this.root = element(
      'header', {class: 'toolbar', hidden: true},
      field('Run', this.run), field('Statistic', this.statistic), field('Layers', this.filter),
      element('p', {class: 'hint'}, 'Click a layer for its lines, drag across steps to zoom.'));
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

  /** Offers statistics. */
  showStatistics(statistics, chosen) {
    this.statistic.disabled = this.filter.disabled = !statistics.length;
    this.statistic.replaceChildren(...statistics.map(({name, label}) =>
      element('option', {value: name, selected: name === chosen}, label)));
  }
}
