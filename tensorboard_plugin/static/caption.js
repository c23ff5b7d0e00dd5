// The words above the heatmap: what its colour means, how much is shown, and the legend.

import {element} from './dom.js';
import {count, whole} from './format.js';
import {Legend} from './legend.js';

export class Caption {
  /**
   * @param {function()} onZoomOut Called when all steps are to be shown again.
   * @param {function(boolean)} onAll Called when all groups are to be opened, or collapsed.
   */
  constructor(onZoomOut, onAll = () => {}) {
    this.legend = new Legend();
    this.title = element('h1', {});
    this.description = element('p', {class: 'description'});
    this.summary = element('span', {class: 'summary'});
    this.refining = element('span', {class: 'refining', role: 'status'});
    this.zoomOut = element(
      'button', {class: 'link', type: 'button', hidden: true, onclick: onZoomOut},
      'Show all steps');
    this.groups = element(
      'span', {class: 'all-groups', hidden: true},
      ...[['Expand all groups', true], ['Collapse all', false]].map(([text, open]) => element(
        'button', {class: 'link', type: 'button', onclick: () => onAll(open)}, text)));
    this.root = element(
      'div', {class: 'caption'},
      element(
        'div', {class: 'words'}, this.title, this.description,
        element('p', {}, this.summary, ' ', this.refining, ' ', this.zoomOut, ' ', this.groups)),
      this.legend.root);
  }

  /**
   * @param {object} answer Of `heatmap`.
   * @param {StepAxis} axis
   * @param {number} rows How many of the answer's variables are shown.
   * @param {{start: ?number, end: ?number}} zoom
   * @param {boolean} groups Whether there are any.
   */
  show(answer, axis, rows, {start, end}, groups = false) {
    const all = answer.variables.length;
    const layers = rows < all ? `${whole(rows)} of ${count(all, 'layer')}` : count(all, 'layer');
    const range = start === null ? '' : ` from ${whole(start)} to ${whole(end)}`;
    const most = Math.ceil(axis.records / axis.columns);
    const mean = axis.bucketed
      ? ` A column is up to ${whole(most)} records, its colour their mean.` : '';
    this.zoomOut.hidden = start === null;
    this.groups.hidden = !groups;
    this.title.textContent = answer.statistic.label;
    this.description.textContent = answer.statistic.description;
    this.summary.textContent =
      answer.sampled ? `${layers}${range}.`
        : `${layers}, ${count(axis.records, 'recorded step')}${range}.${mean}`;
    const text = answer.sampled
      ? `Refining: a random sample of ${count(axis.records, 'record')} until all are read …` : '';
    if (this.refining.textContent !== text) this.refining.textContent = text;
  }
}
