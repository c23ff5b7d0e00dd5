// A line over the steps with marks: where the loss scale moved, steps were skipped, the optimizer
// was switched.

import {CANVAS_FONT, css} from './dom.js';
import {Line} from './lines.js';

/** What a mark looks like in words; shapes, not colours alone, tell them apart. */
export const GLYPHS = {lowered: '▼', raised: '▲', skipped: '✕', switched: '┃'};

// Above this many in sight, lines through the chart would hide it.
const MOST_LINES = 60;

export class EventLine extends Line {
  /**
   * @param {Element} box As of `Line`.
   * @param {object} options As of `Line`.
   * @param {Array<{kind: string, step: number, label: ?string}>} marks Kinds as in `GLYPHS`.
   */
  constructor(box, options, marks) {
    super(box, options);
    this.marks = marks;
  }

  show(...shown) {
    super.show(...shown);
    // uPlot draws for the first time after this.
    this.plot.hooks.draw.push((plot) => this.#draw(plot));
  }

  #draw(plot) {
    const {ctx: context, bbox} = plot;
    const {min, max} = plot.scales.x;
    const pixel = devicePixelRatio;
    const seen = this.marks.filter(({step}) => step >= min && step <= max);
    context.save();
    context.lineWidth = pixel;
    const taken = new Set();
    for (const {kind, step, label} of seen) {
      const x = Math.round(plot.valToPos(step, 'x', true));
      if (taken.has(`${kind} ${x}`)) continue;
      taken.add(`${kind} ${x}`);
      if (kind === 'switched' || (kind === 'skipped' && seen.length <= MOST_LINES)) {
        context.strokeStyle = css(kind === 'switched' ? '--text' : '--strong-line');
        context.setLineDash(kind === 'switched' ? [] : [2 * pixel, 3 * pixel]);
        context.beginPath();
        context.moveTo(x, bbox.top);
        context.lineTo(x, bbox.top + bbox.height);
        context.stroke();
      }
      context.setLineDash([]);
      if (kind === 'switched') this.#name(context, bbox, x, label);
      else this.#shape(context, kind, x, bbox, pixel);
    }
    context.restore();
  }

  #name(context, bbox, x, label) {
    if (!label) return;
    const pixel = devicePixelRatio;
    context.font = CANVAS_FONT.replace('11px', `${11 * pixel}px`);
    const width = context.measureText(label).width + 8 * pixel;
    const left = x + width > bbox.left + bbox.width ? x - width : x;
    context.fillStyle = css('--page');
    context.fillRect(left + pixel, bbox.top, width - pixel, 14 * pixel);
    context.fillStyle = css('--text');
    context.textAlign = 'left';
    context.textBaseline = 'top';
    context.fillText(label, left + 4 * pixel, bbox.top + pixel);
  }

  // Above what was raised; a cross at the foot for a skipped step, over it what was lowered.
  #shape(context, kind, x, bbox, pixel) {
    const size = 4.5 * pixel;
    const bottom = bbox.top + bbox.height;
    const y = {
      raised: bbox.top + 1.6 * size, lowered: bottom - 4.2 * size, skipped: bottom - 1.6 * size,
    }[kind];
    context.fillStyle = context.strokeStyle = css(kind === 'raised' ? '--series' : '--accent');
    context.beginPath();
    if (kind === 'skipped') {
      context.lineWidth = 1.8 * pixel;
      context.moveTo(x - size * 0.8, y - size * 0.8);
      context.lineTo(x + size * 0.8, y + size * 0.8);
      context.moveTo(x + size * 0.8, y - size * 0.8);
      context.lineTo(x - size * 0.8, y + size * 0.8);
      context.stroke();
      context.lineWidth = pixel;
      return;
    }
    const up = kind === 'raised' ? -1 : 1;
    context.moveTo(x - size, y - up * size * 0.8);
    context.lineTo(x + size, y - up * size * 0.8);
    context.lineTo(x, y + up * size * 0.9);
    context.fill();
  }
}
