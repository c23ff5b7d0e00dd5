// What lines alone do not say: values that are not finite, zeros below a logarithmic axis, the
// usual value, and each line's number behind its end.

import {CANVAS_FONT} from './dom.js';
import {placeColor, placeName} from './layercolors.js';
import {clipped, fillColumn, markNotFinite, markTarget, points} from './plot.js';

/** Room for the numbers right of a plot. */
export const NAMES_WIDTH = 16;
const NAME_HEIGHT = 11;

/** Draws over a uPlot what a `LineChart` shows besides lines. */
export function drawMarks(plot, chart) {
  clipped(plot, () => {
    drawColumns(plot, chart);
    markTarget(plot, chart.statistic);
  });
  drawNames(plot, chart);
}

// Red at the top where a value is not finite, the layer's colour at the bottom where it is 0.
function drawColumns(plot, {horizontal: {edges}, lines, log}) {
  const {ctx: context, bbox} = plot;
  const pixel = devicePixelRatio;
  lines.forEach(({place, mean, nonfinite}, index) => {
    markNotFinite(plot, edges, nonfinite);
    if (!log) return;
    context.fillStyle = placeColor(place);
    const top = bbox.top + bbox.height - 3 * (index + 1) * pixel;
    mean.forEach((value, column) => {
      if (value === 0) fillColumn(plot, edges, column, top, 2 * pixel);
    });
  });
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
