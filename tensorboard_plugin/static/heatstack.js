// The heatmaps of several runs one below the other on one scale, or their differences from one.

import {Cells} from './cells.js';
import {NOT_FINITE, PALETTE, ZERO, colorScale} from './colors.js';
import {CommonAxis, differenceOf, matchRows, together} from './comparison.js';
import {differenceText, divergingScale} from './diverging.js';
import {element} from './dom.js';
import {count, exact, whole} from './format.js';
import {Horizontal} from './horizontal.js';
import {swatch} from './layercolors.js';
import {Legend} from './legend.js';
import {pathFilter} from './search.js';

// So many paths of layers that not all runs have are named.
const MOST_NAMED = 3;
const MOST_LETTERS = 60;

const short = (name) => (name.length > MOST_LETTERS ? `…${name.slice(1 - MOST_LETTERS)}` : name);

export class HeatStack {
  /**
   * @param {object} listeners As those of `Cells`, but for `onScroll`.
   * @param {...Node} controls For the heading.
   */
  constructor(listeners, ...controls) {
    this.listeners = listeners;
    this.legend = new Legend();
    this.heading = element('h2', {});
    this.caption = element('p', {class: 'description'});
    this.matching = element('p', {class: 'description matching'});
    this.place = element('div', {class: 'stack'});
    this.root = element(
      'section', {class: 'heat-stack'},
      element(
        'div', {class: 'compare-head'},
        element('div', {class: 'words'}, this.heading, this.caption, this.matching),
        this.legend.root),
      element('div', {class: 'compare-controls'}, ...controls),
      this.place);
    this.cells = [];
  }

  /**
   * @param {Array<{name: string, place: number, heat: ?object}>} runs With their answers of
   *     `heatmap`, null where the statistic was not recorded.
   * @param {string} baseline The run from which the others' differences are shown; '' for none.
   * @param {string} filter As in `search.js`.
   * @returns {number} How many rows are shown.
   */
  show(runs, baseline, filter) {
    const having = runs.filter(({heat}) => heat && heat.records);
    this.statistic = having[0]?.heat.statistic;
    this.parts = having.map((run) => ({
      ...run, horizontal: new Horizontal('step', run.heat, 0),
      rowOf: new Map(run.heat.variables.map((path, row) => [path, row])),
    })).map((part) => ({...part, axis: part.horizontal.steps}));
    this.without = runs.filter((run) => !having.includes(run)).map(({name}) => name);
    this.cells = [];
    this.place.replaceChildren();
    this.legend.root.hidden = true;
    this.baseline = this.parts.find(({name}) => name === baseline);
    this.matched = matchRows(this.parts.map(({heat}) => heat.variables));
    const {matches, error} = pathFilter(filter);
    this.rows = this.matched.paths.filter(matches);
    this.range = new CommonAxis(this.parts.map(({horizontal}) => horizontal));
    this.heading.textContent = this.statistic?.label || '';
    if (!this.parts.length) this.#message('None of these runs has recorded it in these steps.');
    else if (!this.rows.length) {
      this.caption.textContent = this.matching.textContent = '';
      this.#message(error || 'No layer matches the filter. Clear it to see all layers.');
    } else if (this.baseline) this.#showDifferences(matches);
    else this.#showValues(matches);
    return this.cells.length ? this.rows.length : 0;
  }

  layout(width, height) {
    const share = [0, 0.6, 0.42][this.cells.length] || 0.34;
    const most = Math.max(190, Math.round(height * share));
    for (const cells of this.cells) cells.layout(width, most);
  }

  draw() {
    if (this.cells.length) this.legend.show(this.scale, this.statistic, this.present);
    for (const cells of this.cells) cells.draw();
  }

  setCursor(step) {
    for (const cells of this.cells) cells.setCursor(step);
  }

  /** The lines of a tooltip for what `onHover` was given: `[label, text]` each, and a title. */
  describe(cells, {row, column, step}) {
    const path = cells.shown.paths[row];
    const {difference} = cells;
    if (difference) return {title: path, lines: this.#differenceLines(difference, row, column)};
    // The middle of the column under the pointer, so that all runs tell the same step.
    const place = column < 0 ? step : cells.shown.axis.middle[column];
    const lines = place === null ? [] : [['Step', whole(place)]];
    for (const {name, heat, axis, rowOf} of this.parts) {
      const at = rowOf.get(path);
      if (at === undefined) lines.push([short(name), 'no such layer']);
      else if (place !== null) {
        lines.push([short(name), cellText(heat, axis, at, axis.columnAt(place))]);
      }
    }
    return {title: path, lines};
  }

  #differenceLines({found, base, other, log}, row, column) {
    if (column < 0) return [['', 'No column that both have']];
    const at = row * found.axis.columns + column;
    const broken = found.broken[at] > 0;
    const text = (value) =>
      (Number.isNaN(value) ? (broken ? 'none that is finite' : 'not recorded') : exact(value));
    const value = found.values[at];
    const [word, steps] = /^(Steps?) (.*)$/.exec(found.axis.name(column)).slice(1);
    return [
      [word, steps],
      [`${short(base.name)} (baseline)`, text(found.base[at])],
      [short(other.name), text(found.other[at])],
      [log ? 'Ratio' : 'Difference', Number.isNaN(value) ? '–' : differenceText(value, log)],
      ...(broken ? [['', 'with records that are not finite']] : []),
    ];
  }

  #showValues(matches) {
    const {parts, statistic, matched} = this;
    this.scale = colorScale(statistic, together(parts.map(({heat}) => heat.mean.values)));
    this.present = {zero: false, notFinite: false, missing: false};
    const separate = parts.length > 1 && !matched.shared;
    for (const part of parts) {
      const {heat, rowOf, axis, horizontal} = part;
      // Without a common layer, matching rows would only leave every other row empty.
      const paths = separate ? heat.variables.filter(matches) : this.rows;
      const rows = paths.map((path) => rowOf.get(path));
      const broken = (row, column) => rows[row] !== undefined &&
        heat.nonfinite.values[rows[row] * axis.columns + column] > 0;
      const color = (row, column) => {
        if (rows[row] === undefined) return null;
        if (broken(row, column)) return NOT_FINITE;
        const value = heat.mean.values[rows[row] * axis.columns + column];
        if (Number.isNaN(value)) return null;
        return this.scale.log && value <= 0 ? ZERO : PALETTE[this.scale.shade(value)];
      };
      this.#note(heat);
      this.#add(part, {
        paths, axis: horizontal.steps, color, marked: broken,
        absent: new Set(paths.filter((path) => !rowOf.has(path))),
        label: `${statistic.label} of ${short(part.name)}`,
      });
    }
    this.legend.show(this.scale, statistic, this.present);
    this.legend.root.hidden = false;
    this.caption.textContent =
      `${statistic.description} One colour scale and one axis of steps for all.` +
      this.#withoutText();
    this.matching.textContent = separate
      ? 'These runs have no layer in common: each has its own rows. Compare runs of the same model.'
      : this.#matchingText();
  }

  // Which kinds of cells off the scale there are.
  #note({mean, nonfinite}) {
    mean.values.forEach((value, at) => {
      if (nonfinite.values[at] > 0) this.present.notFinite = true;
      else if (Number.isNaN(value)) this.present.missing = true;
      else if (this.scale.log && value <= 0) this.present.zero = true;
    });
  }

  #showDifferences(matches) {
    const {baseline, parts, statistic} = this;
    const log = statistic.scale === 'log';
    const others = parts.filter((part) => part !== baseline);
    const found = others.map((other) => {
      const rows = baseline.heat.variables.filter((path) => other.rowOf.has(path) && matches(path));
      return {base: baseline, other, rows, log, found: differenceOf(baseline, other, rows, log)};
    });
    this.scale = divergingScale(together(found.map((one) => one.found.values)), log);
    this.present = {zero: false, notFinite: false, missing: false};
    this.heading.textContent = `${statistic.label}: difference from ${short(baseline.name)}`;
    const usable = found.filter((one) => one.rows.length && one.found.axis.columns);
    this.rows = usable[0]?.rows || [];
    this.range = new CommonAxis(usable.map((one) => rangeOf(one.found.axis)));
    for (const one of found) {
      if (usable.includes(one)) this.#addDifference(one);
      else this.#message(this.#noDifference(one), one.other);
    }
    this.legend.root.hidden = !usable.length;
    this.legend.show(this.scale, {label: `the difference of ${statistic.label}`}, this.present);
    this.caption.textContent = (log
      ? `The ratio to ${short(baseline.name)}, coloured by its logarithm; orange is above it.`
      : `What is added to ${short(baseline.name)}; orange is above it.`) + this.#withoutText();
    this.matching.textContent = usable.map((one) => columnsText(one, others.length > 1)).join(' ') +
      (this.matched.common < this.matched.paths.length && usable.length
        ? ' Layers that only one of them has are left out.' : '');
  }

  #addDifference(one) {
    const {found, other, rows} = one;
    const {columns} = found.axis;
    const {scale} = this;
    const broken = (row, column) => found.broken[row * columns + column] > 0;
    found.values.forEach((value, at) => {
      if (found.broken[at]) this.present.notFinite = true;
      else if (Number.isNaN(value)) this.present.missing = true;
    });
    const cells = this.#add(other, {
      paths: rows, axis: found.axis, absent: new Set(), marked: broken,
      color: (row, column) => {
        if (broken(row, column)) return scale.notFinite;
        const value = found.values[row * columns + column];
        return Number.isNaN(value) ? null : scale.palette[scale.shade(value)];
      },
      label: `${this.statistic.label}: ${short(other.name)} against ${short(one.base.name)}`,
    });
    cells.difference = one;
  }

  #noDifference({base, other, rows}) {
    const names = `${short(base.name)} and ${short(other.name)}`;
    return rows.length || this.matched.common
      ? `${names} have recorded no common steps here, or the filter leaves no common layer.`
      : `${names} have no layer in common. Only runs of the same model have a difference.`;
  }

  #add(part, shown) {
    const cells = new Cells({
      ...this.listeners,
      onScroll: (top) => {
        for (const other of this.cells) if (other !== cells) other.scrollTo(top);
      },
    });
    cells.title.replaceChildren(swatch(part.place), element('span', {title: part.name}, part.name));
    cells.show({...shown, range: this.range});
    this.cells.push(cells);
    this.place.append(cells.root);
    return cells;
  }

  #message(text, part = null) {
    this.legend.root.hidden = !this.cells.length;
    this.place.append(element(
      'div', {class: 'compare-message'}, part && swatch(part.place), element('p', {}, text)));
  }

  #withoutText() {
    return this.without.length
      ? ` Not recorded in these steps of ${this.without.map(short).join(', ')}.` : '';
  }

  // Which layers not all runs have.
  #matchingText() {
    const {parts, matched, rows} = this;
    const all = matched.paths.length;
    const shown = rows.length < all ? `${whole(rows.length)} of ${count(all, 'layer')}` :
      count(all, 'layer');
    if (parts.length < 2) return `${shown}.`;
    if (matched.common === all) return `${shown}, in all of these runs.`;
    const partial = matched.paths.filter((path) => parts.some(({rowOf}) => !rowOf.has(path)));
    const named = partial.slice(0, MOST_NAMED).map((path) => {
      const having = parts.filter(({rowOf}) => rowOf.has(path)).map(({name}) => short(name));
      return `${short(path)} (only ${having.join(', ')})`;
    });
    const more = partial.length - named.length;
    return `${shown}, ${whole(partial.length)} of them not in all runs: ${named.join(', ')}` +
      `${more ? ` and ${whole(more)} more` : ''}.`;
  }
}

function rangeOf(axis) {
  const {columns, low, high} = axis;
  return {
    kind: 'step', columns, low, high, stepsWithin: (from, to) => axis.recordsWithin(from, to),
  };
}

// How the columns of two runs were matched.
function columnsText({found, base, other}, several) {
  const {axis, coarse} = found;
  const [rough, fine] = coarse === 'base' ? [base, other] : [other, base];
  const exactly = axis.columns === rough.axis.columns && axis.columns === fine.axis.columns &&
    axis.middle.every((step, column) => step === fine.axis.middle[column]);
  const span = `Steps ${whole(axis.first[0])} to ${whole(axis.last[axis.columns - 1])}`;
  const name = several ? `${short(other.name)}: ` : '';
  return exactly
    ? `${name}${span}, ${count(axis.columns, 'column')} that both have.`
    : `${name}${span}, which both have: ${count(axis.columns, 'column')} of ` +
      `${short(rough.name)}, each with the mean of the nearest of ${short(fine.name)}.`;
}

function cellText(heat, axis, row, column) {
  if (column < 0) return '–';
  const at = row * axis.columns + column;
  const [mean, broken] = [heat.mean.values[at], heat.nonfinite.values[at]];
  if (Number.isNaN(mean)) return broken ? exact(heat.minimum.values[at]) : 'not recorded';
  const steps = axis.first[column] === axis.last[column] ? '' :
    `, mean of ${whole(axis.first[column])} to ${whole(axis.last[column])}`;
  return `${exact(mean)}${steps}${broken ? `, ${whole(broken)} not finite` : ''}`;
}
