// The strip above the heatmap, on its axis: a lane for each kind of event that the run has.

import {css, element, prepare} from './dom.js';
import {findEvents} from './stepevents.js';
import {count} from './format.js';

const HEIGHT = 18;

// How far from a mark the pointer may be.
const REACH = 6;

// Lowered and skipped mean trouble; the shapes tell more than the colours.
const MARKS = {
  skip: ['✕', '--accent'], clip: ['▇', '--series'], down: ['▼', '--accent'], up: ['▲', '--series'],
  both: ['◆', '--accent'],
};

export class EventStrip {
  /** @param {{tooltip: Tooltip, onCursor: function(?number)}} options */
  constructor({tooltip, onCursor}) {
    this.tooltip = tooltip;
    this.onCursor = onCursor;
    this.said = element('span', {class: 'unseen', role: 'status'});
    this.box = element('div', {class: 'lanes'});
    this.root = element('div', {class: 'strip', hidden: true}, this.box, this.said);
    this.lanes = [];
  }

  /** The most height that a strip takes. */
  static get mostHeight() {
    return 3 * HEIGHT + 6;
  }

  get height() {
    return this.root.hidden ? 0 : this.lanes.length * HEIGHT + 6;
  }

  /** Shows an answer of `steps`; `axis` is its own, `range` the heatmap's. */
  show(answer, axis, range) {
    Object.assign(this, {axis, range});
    this.lanes = findEvents(answer).map((lane) => this.#lane(lane));
    this.box.replaceChildren(...this.lanes.map(({root}) => root));
    this.root.hidden = !this.lanes.length;
  }

  /** Takes away what was shown of another run. */
  clear() {
    this.lanes = [];
    this.root.hidden = true;
  }

  /** Fits the lanes between the insets of the heatmap's cells, and draws. */
  layout(width, {left, right}) {
    this.width = width;
    this.root.style.setProperty('--left', `${left}px`);
    this.root.style.paddingRight = `${right}px`;
    this.draw();
  }

  /** Draws with the theme's colours. */
  draw() {
    if (!this.width) return;
    for (const {canvas, lane} of this.lanes) {
      const context = prepare(canvas, this.width, HEIGHT);
      for (const event of lane.events) this.#mark(context, event);
    }
  }

  setCursor(step) {
    const inside = step !== null && this.range && step >= this.range.low && step <= this.range.high;
    for (const {cursor} of this.lanes) {
      cursor.hidden = !inside;
      if (inside) cursor.style.left = `${this.#x(step)}px`;
    }
  }

  #x(step) {
    return ((step - this.range.low) / (this.range.high - this.range.low)) * this.width;
  }

  #mark(context, {column, kind, size}) {
    // Whole marks at both ends, too.
    const middle = Math.max(5, Math.min(this.width - 5, this.#x(this.axis.middle[column])));
    const center = HEIGHT / 2;
    context.fillStyle = context.strokeStyle = css(MARKS[kind][1]);
    context.beginPath();
    if (kind === 'clip') {
      const left = this.#x(this.axis.edges[column]);
      const right = this.#x(this.axis.edges[column + 1]);
      const gap = right - left > 4 ? 1 : 0;
      const height = 2 + size * (HEIGHT - 5);
      context.rect(left, HEIGHT - 1 - height, Math.max(1, right - left - gap), height);
      context.fill();
    } else if (kind === 'skip') {
      context.lineWidth = 1.8;
      for (const side of [-1, 1]) {
        context.moveTo(middle - 4, center - 4 * side);
        context.lineTo(middle + 4, center + 4 * side);
      }
      context.stroke();
    } else {
      const tip = kind === 'up' ? -1 : 1;
      const base = kind === 'both' ? center : center - 4 * tip;
      context.moveTo(middle - 5, base);
      if (kind === 'both') context.lineTo(middle, center - 5);
      context.lineTo(middle + 5, base);
      context.lineTo(middle, center + 5 * tip);
      context.fill();
    }
  }

  #lane(lane) {
    const canvas = element('canvas', {});
    const cursor = element('div', {class: 'cursor', hidden: true});
    const kinds = [...new Set(lane.events.map(({kind}) => kind))].sort();
    const label = `${lane.label}: ${count(lane.events.length, 'mark')}. ` +
      'Left and right arrows go from one to the next.';
    const track = element(
      'div', {class: 'track', role: 'group', tabIndex: 0, aria: {label}}, canvas, cursor);
    const root = element(
      'div', {class: 'lane', dataset: {lane: lane.name}},
      element(
        'div', {class: 'lane-name', title: lane.about},
        ...kinds.map((kind) => this.#glyph(kind)), lane.label,
        element('span', {class: 'value'}, lane.summary)),
      track);
    let at = -1;
    track.addEventListener('mousemove', ({clientX, clientY}) => {
      const x = clientX - canvas.getBoundingClientRect().left;
      this.#tell(this.#near(lane, x), clientX, clientY);
      const {low, high} = this.range;
      this.onCursor(low + (x / this.width) * (high - low));
    });
    for (const left of ['mouseleave', 'blur']) {
      track.addEventListener(left, () => {
        this.tooltip.hide();
        this.onCursor(null);
      });
    }
    track.addEventListener('keydown', (event) => {
      const last = lane.events.length - 1;
      const goes = {
        ArrowRight: Math.min(last, at + 1), ArrowLeft: Math.max(0, at - 1), Home: 0, End: last,
      };
      if (!(event.key in goes)) return;
      event.preventDefault();
      at = goes[event.key];
      const found = lane.events[at];
      const step = this.axis.middle[found.column];
      const {left, top} = canvas.getBoundingClientRect();
      this.onCursor(step);
      this.#tell(found, left + this.#x(step), top + HEIGHT / 2);
      this.said.textContent = `${this.axis.name(found.column)}: ${found.text}`;
    });
    return {root, canvas, cursor, lane};
  }

  #glyph(kind) {
    const [text, color] = MARKS[kind];
    const mark = element('i', {class: 'glyph', aria: {hidden: true}}, text);
    mark.style.color = `var(${color})`;
    return mark;
  }

  // The event whose mark is under the pointer, or the nearest within reach.
  #near({events}, x) {
    let found = null;
    let least = REACH;
    for (const event of events) {
      const middle = this.#x(this.axis.middle[event.column]);
      const half = (this.#x(this.axis.edges[event.column + 1]) -
        this.#x(this.axis.edges[event.column])) / 2;
      const away = Math.max(0, Math.abs(x - middle) - (event.kind === 'clip' ? half : 0));
      if (away < least) [found, least] = [event, away];
    }
    return found;
  }

  #tell(event, x, y) {
    if (!event) {
      this.tooltip.hide();
      return;
    }
    this.tooltip.place(
      x, y, element('div', {class: 'tooltip-title'}, this.axis.name(event.column)),
      element('div', {}, event.text));
  }
}
