// What lines alone do not say: values that are not finite, zeros below a logarithmic axis, the
// usual value, and each line's number behind its end.

import {NOT_FINITE, rgb} from './colors.js';
import {CANVAS_FONT, css} from './dom.js';
import {placeColor, placeName} from './layercolors.js';
import {points} from './lines.js';

/** Room for the numbers right of a plot. */
export const NAMES_WIDTH = 16;
const NAME_HEIGHT = 11;

/** Draws over a uPlot what a `LineChart` shows besides lines. */
export function drawMarks(plot, chart) {
  const {ctx: context, bbox} = plot;
  context.save();
  context.beginPath();
  context.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  context.clip();
  drawColumns(plot, chart);
  drawTarget(plot, chart.statistic);
  context.restore();
  drawNames(plot, chart);
}

// Red at the top where a value is not finite, the layer's colour at the bottom where it is 0.
function drawColumns(plot, {horizontal, lines, log}) {
  const {ctx: context, bbox} = plot;
  const pixel = devicePixelRatio;
  const bar = (column, top, height) => {
    const left = plot.valToPos(horizontal.edges[column], 'x', true);
    const right = plot.valToPos(horizontal.edges[column + 1], 'x', true);
    context.fillRect(left, top, Math.max(right - left, 2 * pixel), height);
  };
  lines.forEach(({place, mean, nonfinite}, index) => {
    context.fillStyle = rgb(NOT_FINITE);
    nonfinite.forEach((amount, column) => {
      if (amount) bar(column, bbox.top, 5 * pixel);
    });
    if (!log) return;
    context.fillStyle = placeColor(place);
    mean.forEach((value, column) => {
      if (value === 0) bar(column, bbox.top + bbox.height - 3 * (index + 1) * pixel, 2 * pixel);
    });
  });
}

function drawTarget(plot, {target}) {
  const {ctx: context, bbox} = plot;
  const {min, max} = plot.scales.y;
  if (!target || target <= min || target >= max) return;
  const pixel = devicePixelRatio;
  const y = Math.round(plot.valToPos(target, 'y', true));
  context.setLineDash([4 * pixel, 4 * pixel]);
  context.lineWidth = pixel;
  context.strokeStyle = css('--dim');
  context.beginPath();
  context.moveTo(bbox.left, y);
  context.lineTo(bbox.left + bbox.width, y);
  context.stroke();
}

function drawNames(plot, {lines, log, smoothed}) {
  const {ctx: context, bbox} = plot;
  const pixel = devicePixelRatio;
  const names = lines.flatMap(({place, mean}, index) => {
    const value = points(smoothed[index] || mean, log).findLast((one) => one !== null);
    return value === undefined ? [] : [{place, y: plot.valToPos(value, 'y', true)}];
  }).sort((a, b) => a.y - b.y);
  // Downwards each has room below the one before; then upwards what has left the plot.
  const room = NAME_HEIGHT * pixel;
  let least = bbox.top + room / 2;
  for (const name of names) {
    name.y = Math.max(name.y, least);
    least = name.y + room;
  }
  let most = bbox.top + bbox.height - room / 3;
  for (const name of names.reverse()) {
    name.y = Math.min(name.y, most);
    most = name.y - room;
  }
  context.save();
  context.font = `bold ${11 * pixel}px ${CANVAS_FONT.slice(5)}`;
  context.textAlign = 'left';
  context.textBaseline = 'middle';
  for (const {place, y} of names) {
    context.fillStyle = placeColor(place);
    context.fillText(placeName(place), bbox.left + bbox.width + 4 * pixel, y);
  }
  context.restore();
}
