// One quantity of several runs over a common axis: a line each, named at its end.

import uPlot from './vendor/uPlot/uPlot.esm.js';
import {CANVAS_FONT, element} from './dom.js';
import {DASHES, placeColor} from './layercolors.js';
import {Plot, axisLabel, clipped, markNotFinite, points, spansDecade} from './plot.js';

const NAMES = {width: 92, height: 12, letters: 14};

export class Overlay extends Plot {
  /**
   * @param {{onPoint: function(Overlay, ?number, object, boolean), onZoom: function(?number[])}}
   *     listeners `onPoint` gets a place of the axis, a point of the page, and whether the keyboard
   *     moved; a zoom is `[first, last]` step, or null for all. With `named: false` the lines' ends
   *     have no names.
   */
  constructor({onPoint, onZoom, named = true}) {
    super(element('div', {class: 'plot', role: 'application', tabIndex: 0}));
    Object.assign(this, {onPoint, onZoom, named});
    this.name = element('h3', {});
    this.note = element('span', {class: 'value'});
    this.heading = element('div', {class: 'heading'}, this.name, this.note);
    this.root = element('section', {class: 'overlay'}, this.heading, this.box);
    this.box.addEventListener('keydown', (event) => this.#key(event));
    this.box.addEventListener('blur', () => this.onPoint(this, null));
  }

  /**
   * @param {CommonAxis} range
   * @param {object} quantity
   * @param {Array<{name: string, place: number, horizontal: Horizontal, mean, minimum, nonfinite}>}
   *     lines
   */
  show(range, quantity, lines) {
    Object.assign(this, {range, quantity, lines});
    this.log = quantity.scale === 'log' &&
      spansDecade(lines.flatMap(({mean}) => Array.from(mean)));
    this.name.textContent = quantity.label;
    this.name.title = quantity.description;
    this.note.textContent = this.log ? 'logarithmic' : '';
    this.root.dataset.quantity = quantity.name;
    const tables = lines.map(({horizontal, mean}) =>
      [Array.from(horizontal.middle), points(mean, this.log)]);
    this.data = uPlot.join(tables);
    this.make(this.data, {
      range, places: (places) => range.labels(places), log: this.log,
      series: lines.map(({place, horizontal}) => ({
        stroke: () => placeColor(place), width: 1.75, dash: DASHES[place], spanGaps: false,
        points: {show: horizontal.columns < 20, size: 5, fill: () => placeColor(place)},
      })),
      points: {fill: (plot, series) => placeColor(lines[series - 1].place)},
      right: this.named ? NAMES.width : 0,
    });
    const last = lines.map(({name, mean}) => {
      const value = mean.findLast((one) => Number.isFinite(one));
      return `${name.slice(0, 200)}: ${value === undefined ? 'none' : axisLabel(value, false)}`;
    });
    this.box.setAttribute(
      'aria-label', `${quantity.label}. Last values: ${last.join('; ')}. Left and right move the ` +
        'cursor, plus and minus zoom, 0 shows all steps.');
  }

  /** A line's value at a place of the axis; undefined where it has no column. */
  valueAt({horizontal, mean, minimum, nonfinite}, place) {
    const column = horizontal.columnAt(place);
    if (column < 0) return undefined;
    if (Number.isNaN(mean[column]) && !nonfinite[column]) return undefined;
    return Number.isNaN(mean[column]) ? minimum[column] : mean[column];
  }

  /** Puts the vertical cursor at a place of the axis, or takes it away. */
  setCursor(place) {
    this.at = place;
    super.setCursor(place);
  }

  moved(place, point) {
    this.onPoint(this, place, point, false);
  }

  dragged(low, high) {
    const steps = this.range.stepsWithin(low, high);
    if (steps) this.onZoom(steps);
  }

  #key(event) {
    if (!this.plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const [places] = this.data;
    const moves = {
      ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity,
    };
    const {low, high} = this.range;
    const middle = this.at ?? (low + high) / 2;
    if (event.key in moves) {
      const now = this.at === null || this.at === undefined
        ? places.length : places.findIndex((place) => place >= this.at);
      const index = Math.max(0, Math.min(places.length - 1, now + moves[event.key]));
      const box = this.plot.over.getBoundingClientRect();
      const left = this.plot.valToPos(places[index], 'x');
      this.onPoint(this, places[index], {x: box.left + left, y: box.top + box.height / 3}, true);
    } else if ('+='.includes(event.key)) {
      const steps = this.range.stepsWithin(middle - (high - low) / 4, middle + (high - low) / 4);
      if (steps) this.onZoom(steps);
    } else if (event.key === '-' || event.key === '0') this.onZoom(null);
    else if (event.key === 'Escape') this.onPoint(this, null);
    else return;
    event.preventDefault();
  }

  // Red marks for what is not finite, and the runs' names behind the ends of their lines.
  decorate(plot) {
    clipped(plot, () => {
      for (const {horizontal, nonfinite} of this.lines) {
        markNotFinite(plot, horizontal.edges, nonfinite);
      }
    });
    if (this.named) this.#drawNames(plot);
  }

  #drawNames(plot) {
    const {ctx: context, bbox} = plot;
    const pixel = devicePixelRatio;
    const room = NAMES.height * pixel;
    context.save();
    const names = this.lines.flatMap(({name, place, mean, horizontal}) => {
      const values = points(mean, this.log);
      const column = values.findLastIndex((one) => one !== null);
      if (column < 0) return [];
      const end = plot.valToPos(horizontal.middle[column], 'x', true);
      return [{name, place, end, y: plot.valToPos(values[column], 'y', true)}];
    }).sort((a, b) => a.y - b.y);
    let least = bbox.top + room / 2;
    for (const name of names) {
      name.at = Math.max(name.y, least);
      least = name.at + room;
    }
    let most = bbox.top + bbox.height - room / 2;
    for (const name of [...names].reverse()) {
      name.at = Math.min(name.at, most);
      most = name.at - room;
    }
    const edge = bbox.left + bbox.width;
    context.font = `${11 * pixel}px ${CANVAS_FONT.slice(5)}`;
    context.textAlign = 'left';
    context.textBaseline = 'middle';
    context.lineWidth = pixel;
    context.setLineDash([pixel, 3 * pixel]);
    for (const {name, place, end, y, at} of names) {
      context.strokeStyle = context.fillStyle = placeColor(place);
      // A dotted leader from where the line ends to its name, too faint to be taken for data.
      context.globalAlpha = 0.6;
      context.beginPath();
      context.moveTo(end + 3 * pixel, y);
      context.lineTo(edge, y);
      context.lineTo(edge + 8 * pixel, at);
      context.stroke();
      context.globalAlpha = 1;
      const short = name.length > NAMES.letters ? `${name.slice(0, NAMES.letters - 1)}…` : name;
      context.fillText(short, edge + 10 * pixel, at);
    }
    context.restore();
  }
}
