// The words above the heatmap: what its colour means, how much is shown, and the legend.

import {element} from './dom.js';
import {count, whole} from './format.js';
import {Legend} from './legend.js';

export class Caption {
  /** @param {function()} onZoomOut Called when all steps are to be shown again. */
  constructor(onZoomOut) {
    this.legend = new Legend();
    this.title = element('h1', {});
    this.description = element('p', {class: 'description'});
    this.summary = element('span', {class: 'summary'});
    this.zoomOut = element(
      'button', {class: 'link', type: 'button', hidden: true, onclick: onZoomOut},
      'Show all steps');
    this.root = element(
      'div', {class: 'caption'},
      element(
        'div', {class: 'words'}, this.title, this.description,
        element('p', {}, this.summary, ' ', this.zoomOut)),
      this.legend.root);
  }

  /**
   * @param {object} answer Of `heatmap`.
   * @param {StepAxis} axis
   * @param {number} rows How many of the answer's variables are shown.
   * @param {{start: ?number, end: ?number}} zoom
   */
  show(answer, axis, rows, {start, end}) {
    const all = answer.variables.length;
    const layers = rows < all ? `${whole(rows)} of ${count(all, 'layer')}` : count(all, 'layer');
    const range = start === null ? '' : ` from ${whole(start)} to ${whole(end)}`;
    const most = Math.ceil(axis.records / axis.columns);
    const mean = axis.bucketed
      ? ` A column is up to ${whole(most)} records, its colour their mean.` : '';
    this.zoomOut.hidden = start === null;
    this.title.textContent = answer.statistic.label;
    this.description.textContent = answer.statistic.description;
    this.summary.textContent =
      `${layers}, ${count(axis.records, 'recorded step')}${range}.${mean}`;
  }
}
