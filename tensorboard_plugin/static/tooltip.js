// The box beside the pointer that tells a cell's layer, steps and exact value.

import {element} from './dom.js';
import {count, exact} from './format.js';
import {brief} from './paths.js';

export class Tooltip {
  constructor() {
    this.root = element('div', {class: 'tooltip', role: 'tooltip', hidden: true});
  }

  hide() {
    this.root.hidden = true;
  }

  /** Shows a cell of an answer of `heatmap` at a point of the page. */
  show({row, column, x, y}, answer, axis) {
    const at = row * axis.columns + column;
    // Minimum and maximum come behind what is painted.
    const value = (name) => answer[name]?.values[at];
    const told = (name) => (name in answer ? exact(value(name)) : '…');
    const lines = [['Step', axis.name(column).replace(/^Steps? /, '')]];
    const missing = !value('nonfinite') && Number.isNaN(value('mean'));
    const {label} = answer.statistic;
    if (missing) {
      lines.push([label, 'not recorded']);
    } else if (!axis.bucketed) {
      lines.push([label, told(value('nonfinite') ? 'minimum' : 'mean')]);
    } else {
      lines.push([`${label}, mean`, told('mean')]);
      lines.push(['Minimum', told('minimum')], ['Maximum', told('maximum')]);
      if (value('nonfinite')) lines.push(['Not finite', count(value('nonfinite'), 'record')]);
    }
    this.place(
      x, y, element('div', {class: 'tooltip-title'}, brief(answer.variables[row])),
      element('dl', {}, ...lines.flatMap(([name, text]) =>
        [element('dt', {}, name), element('dd', {}, text)])));
  }

  /** Shows nodes at a point of the page. */
  place(x, y, ...nodes) {
    this.root.replaceChildren(...nodes);
    this.root.hidden = false;
    const {offsetWidth: width, offsetHeight: height} = this.root;
    const left = x + 16 + width > window.innerWidth ? x - 16 - width : x + 16;
    const top = y + 16 + height > window.innerHeight ? y - 12 - height : y + 16;
    this.root.style.left = `${Math.max(4, left)}px`;
    this.root.style.top = `${Math.max(4, top)}px`;
  }
}
