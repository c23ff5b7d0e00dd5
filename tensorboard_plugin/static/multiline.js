// One quantity of a few replicas over the steps: a line each, told apart by colour and dashes.

import uPlot from './vendor/uPlot/uPlot.esm.js';
import {NOT_FINITE, rgb} from './colors.js';
import {CANVAS_FONT, css, element} from './dom.js';
import {DASHES, placeColor} from './layercolors.js';
import {
  NUMBERS_WIDTH, axisLabel, axisNumbers, padded, paddedLog, points, spansDecade,
} from './lines.js';

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

export class MultiLine {
  /**
   * @param {Element} box Where the plot goes; its size is the plot's.
   * @param {{onCursor: function(?number), onZoom: function(number, number)}} listeners In steps.
   * @param {StepAxis} axis
   * @param {{scale: string}} quantity
   * @param {object[]} lines Of each replica, its arrays as of `rowOf`.
   */
  constructor(box, {onCursor, onZoom}, axis, quantity, lines) {
    Object.assign(this, {box, onCursor, onZoom, axis, lines});
    this.log = quantity.scale === 'log' &&
      spansDecade(lines.flatMap(({mean}) => Array.from(mean)));
  }

  show() {
    const data = [this.axis.middle, ...this.lines.map(({mean}) => points(mean, this.log))];
    this.plot = new uPlot(this.#options(), data, this.box);
  }

  /** Puts the vertical cursor at a step, or takes it away. */
  setCursor(step) {
    if (!this.plot) return;
    const left = step === null ? -10 : this.plot.valToPos(step, 'x');
    this.quiet = true;
    this.plot.setCursor({left, top: step === null ? -10 : 0});
    this.quiet = false;
  }

  resize() {
    if (this.plot) this.plot.setSize({width: this.box.clientWidth, height: this.box.clientHeight});
  }

  /** Draws with the theme's colours. */
  draw() {
    if (this.plot) this.plot.redraw(false);
  }

  destroy() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
  }

  #options() {
    const {axis, log} = this;
    const grid = {stroke: () => css('--line'), width: 1};
    const text = {font: CANVAS_FONT, stroke: () => css('--dim')};
    return {
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      padding: [8, 0, 6, 0],
      legend: {show: false},
      cursor: {
        drag: {x: true, y: false, setScale: false, dist: 5},
        y: false,
        points: {
          size: 7, fill: (plot, series) => placeColor(series - 1), stroke: () => css('--page'),
        },
      },
      scales: {
        x: {time: false, range: () => [axis.low, axis.high]},
        y: log ? {distr: 3, range: paddedLog} : {range: padded},
      },
      series: [{}, ...this.lines.map((_, replica) => ({
        stroke: () => placeColor(replica), width: 1.5, spanGaps: false, dash: DASHES[replica],
        points: {show: axis.columns < 40, size: 5, fill: () => placeColor(replica)},
      }))],
      axes: [
        {
          ...text, grid, ticks: {show: false}, size: 0,
          splits: (plot) => axis.ticks(plot.bbox.width / devicePixelRatio),
          values: (plot, splits) => splits.map(() => ''),
        },
        {
          ...text, grid, ticks: {show: false}, size: NUMBERS_WIDTH, gap: 6, space: 26,
          splits: (plot, index, low, high) => axisNumbers(low, high, log, plot.bbox.height),
          filter: (plot, splits) => splits,
          values: (plot, splits) => splits.map((value) => axisLabel(value, log)),
        },
      ],
      hooks: {
        setCursor: [(plot) => this.#moved(plot)],
        setSelect: [(plot) => this.#selected(plot)],
        draw: [(plot) => this.#decorate(plot)],
      },
    };
  }

  #moved(plot) {
    if (this.quiet) return;
    const {left} = plot.cursor;
    this.onCursor(left === undefined || left < 0 ? null : plot.posToVal(left, 'x'));
  }

  #selected(plot) {
    const {left, width} = plot.select;
    if (!width) return;
    plot.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
    this.onZoom(plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x'));
  }

  // A red mark at the top for each column in which a replica's values are not finite.
  #decorate(plot) {
    const {ctx: context, bbox} = plot;
    context.save();
    context.fillStyle = rgb(NOT_FINITE);
    for (const {nonfinite} of this.lines) {
      nonfinite.forEach((amount, column) => {
        if (!amount) return;
        const left = plot.valToPos(this.axis.edges[column], 'x', true);
        const right = plot.valToPos(this.axis.edges[column + 1], 'x', true);
        const width = Math.max(right - left, 2 * devicePixelRatio);
        context.fillRect(left, bbox.top, width, 5 * devicePixelRatio);
      });
    }
    context.restore();
  }
}
