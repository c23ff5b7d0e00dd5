// The heatmap's cells on a canvas: what each of them is, and how it is painted.

import {NOT_FINITE, PALETTE, ZERO, rgb} from './colors.js';
import {css, prepare} from './dom.js';

// What a cell shows besides a place on the colour scale.
const CELL = {missing: -1, notFinite: -2, zero: -3};

// A colour as one number, as a canvas holds it on a little-endian machine.
const packed = ([red, green, blue]) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
const SHADES = Uint32Array.from(PALETTE, packed);
const OTHERS = {[CELL.notFinite]: packed(NOT_FINITE), [CELL.zero]: packed(ZERO)};

/**
 * @typedef {{mean: Float32Array, nonfinite: Float32Array, from: number}} Source Where a row's
 *     values are, and where they begin.
 */

// A shade of the palette, or one of `CELL`.
function cellAt({mean, nonfinite, from}, column, scale) {
  if (nonfinite[from + column] > 0) return CELL.notFinite;
  const value = mean[from + column];
  if (Number.isNaN(value)) return CELL.missing;
  if (scale.log && value <= 0) return CELL.zero;
  return scale.shade(value);
}

/** Which kinds of cells off the colour scale an answer of `heatmap` has, in any row. */
export function kinds({mean: {values}, nonfinite: {values: nonfinite}}, {log}) {
  const found = {zero: false, notFinite: false, missing: false};
  for (let at = 0; at < values.length; at += 1) {
    const value = values[at];
    if (value > 0 && nonfinite[at] === 0) continue;
    if (nonfinite[at] > 0) found.notFinite = true;
    else if (Number.isNaN(value)) found.missing = true;
    else if (log && value <= 0) found.zero = true;
    if (found.notFinite && found.missing && (found.zero || !log)) break;
  }
  return found;
}

/**
 * Paints rows.
 * @param {HTMLCanvasElement} canvas
 * @param {{width: number, height: number, top: number, rowHeight: number}} box In CSS pixels;
 *     `top` is where the first row begins, at most 0.
 * @param {Array<?Source>} sources Of the rows from the first that is seen; null leaves one empty.
 * @param {StepAxis} axis
 * @param {object} scale Of `colorScale`.
 */
export function paintCells(canvas, {width, height, top, rowHeight}, sources, axis, scale) {
  const context = prepare(canvas, width, height);
  const rows = sources.length;
  if (!rows || !axis.columns) return;
  const pixels = canvas.width;
  const picture = new OffscreenCanvas(pixels, rows);
  const painter = picture.getContext('2d');
  const image = painter.createImageData(pixels, rows);
  const data = new Uint32Array(image.data.buffer);
  const spans = spansOf(axis, pixels);
  sources.forEach((source, row) => {
    if (source) paintRow(data, row * pixels, source, spans, pixels, scale);
  });
  painter.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.fillStyle = hatch(context);
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, top, width, rows * rowHeight);
  context.fillStyle = css('--page');
  sources.forEach((source, row) => {
    if (!source) context.fillRect(0, top + row * rowHeight, width, rowHeight);
    context.fillRect(0, top + (row + 1) * rowHeight - 1, width, 1);
  });
  cross(context, {width, top, rowHeight}, sources, axis, scale);
}

// First and last column under each device pixel. Several can meet under one where records are
// spaced unevenly; then a cell that is not finite wins.
function spansOf(axis, pixels) {
  const spans = new Int32Array(pixels * 2);
  const size = (axis.high - axis.low) / pixels;
  for (let pixel = 0; pixel < pixels; pixel += 1) {
    const middle = axis.columnAt(axis.low + (pixel + 0.5) * size);
    const begins = axis.columnAt(axis.low + pixel * size);
    spans[2 * pixel] = begins < middle - 1 ? begins + 1 : middle;
    spans[2 * pixel + 1] = middle;
  }
  return spans;
}

function paintRow(data, from, source, spans, pixels, scale) {
  let previous = -1;
  let color = 0;
  for (let pixel = 0; pixel < pixels; pixel += 1) {
    const last = spans[2 * pixel + 1];
    if (last !== previous) {
      let cell = cellAt(source, last, scale);
      for (let column = spans[2 * pixel]; column < last; column += 1) {
        if (source.nonfinite[source.from + column] > 0) cell = CELL.notFinite;
      }
      color = cell >= 0 ? SHADES[cell] : OTHERS[cell] || 0;
      previous = last;
    }
    data[from + pixel] = color;
  }
}

// A second sign beside colour, where there is room: a cross on cells that are not finite.
function cross(context, {width, top, rowHeight}, sources, axis, scale) {
  if (width / axis.columns < 7) return;
  const half = 2.5;
  const size = width / (axis.high - axis.low);
  context.strokeStyle = rgb([255, 255, 255]);
  context.lineWidth = 1.25;
  context.beginPath();
  sources.forEach((source, row) => {
    for (let column = 0; source && column < axis.columns; column += 1) {
      if (cellAt(source, column, scale) !== CELL.notFinite) continue;
      const x = ((axis.edges[column] + axis.edges[column + 1]) / 2 - axis.low) * size;
      const y = top + (row + 0.5) * rowHeight - 0.5;
      context.moveTo(x - half, y - half);
      context.lineTo(x + half, y + half);
      context.moveTo(x + half, y - half);
      context.lineTo(x - half, y + half);
    }
  });
  context.stroke();
}

/** What fills cells that were not recorded. */
export function hatch(context) {
  const tile = new OffscreenCanvas(6, 6);
  const painter = tile.getContext('2d');
  painter.fillStyle = css('--missing');
  painter.fillRect(0, 0, 6, 6);
  painter.strokeStyle = css('--missing-line');
  for (const shift of [-6, 0, 6]) {
    painter.moveTo(shift, 6);
    painter.lineTo(shift + 6, 0);
  }
  painter.stroke();
  return context.createPattern(tile, 'repeat');
}
