// One quantity of a few replicas over the steps: a line each, told apart by colour and dashes.

import {element} from './dom.js';
import {whole} from './format.js';
import {DASHES, placeColor} from './layercolors.js';
import {Plot, clipped, markNotFinite, points, spansDecade} from './plot.js';

/** More replicas than these cannot be told apart as lines. */
export const MOST_LINES = DASHES.length;

/** A short piece of a replica's line, for its place among the numbers. */
export function lineKey(replica) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  const attributes = {
    x1: 0, x2: 26, y1: 4, y2: 4, stroke: 'currentColor', 'stroke-width': 2.5,
    'stroke-dasharray': DASHES[replica].join(' '),
  };
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
  svg.setAttribute('width', 26);
  svg.setAttribute('height', 8);
  svg.append(line);
  const root = element('i', {class: 'line-key', aria: {hidden: true}}, svg);
  root.style.color = `var(--layer-${replica + 1})`;
  return root;
}

export class MultiLine extends Plot {
  /**
   * @param {Element} box Where the plot goes; its size is the plot's.
   * @param {{onCursor: function(?number), onZoom: function(number, number), showSteps: boolean}}
   *     listeners In steps; with `showSteps` numbers stand below the axis.
   * @param {StepAxis} axis
   * @param {{scale: string}} quantity
   * @param {object[]} lines Of each replica, its arrays as of `rowOf`.
   */
  constructor(box, {onCursor, onZoom, showSteps = false}, axis, quantity, lines) {
    super(box);
    Object.assign(this, {onCursor, onZoom, showSteps, axis, lines});
    this.log = quantity.scale === 'log' &&
      spansDecade(lines.flatMap(({mean}) => Array.from(mean)));
  }

  show() {
    const {axis, lines, log} = this;
    this.make([axis.middle, ...lines.map(({mean}) => points(mean, log))], {
      range: axis, places: this.showSteps ? (steps) => steps.map(whole) : null, log,
      series: lines.map((_, replica) => ({
        stroke: () => placeColor(replica), width: 1.5, spanGaps: false, dash: DASHES[replica],
        points: {show: axis.columns < 40, size: 5, fill: () => placeColor(replica)},
      })),
      points: {fill: (plot, series) => placeColor(series - 1)},
    });
  }

  decorate(plot) {
    clipped(plot, () => {
      for (const {nonfinite} of this.lines) markNotFinite(plot, this.axis.edges, nonfinite);
    });
  }
}
