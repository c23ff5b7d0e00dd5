// What the tooltip tells of a collapsed group in one column: what its colour is, and its extremes.

import {element} from './dom.js';
import {exact, whole} from './format.js';
import {extremes, meanName, summarise} from './groups.js';
import {brief} from './paths.js';
import {groupName} from './tree.js';

/**
 * @param {object} answer Of `heatmap`.
 * @param {StepAxis} axis
 * @param {Group} group
 * @param {number} column
 * @returns {Node[]} For `Tooltip.place`.
 */
export function groupTip(answer, axis, group, column) {
  const {rows, prefix} = group;
  const {statistic, variables} = answer;
  const found = extremes(answer, rows, column);
  const mean = summarise(only(answer, column), rows).mean[0];
  const value = (row) => exact(answer.mean.values[row * axis.columns + column]);
  const member = (row) => brief(variables[row].slice(prefix.length), 60);
  const lines = [['Step', axis.name(column).replace(/^Steps? /, ''), '']];
  if (!found.recorded) lines.push([statistic.label, 'not recorded', '']);
  if (found.nonfinite) {
    lines.push(['Not finite', `${whole(found.nonfinite)} of ${whole(rows.length)} layers`, '']);
  }
  if (found.lowest >= 0) {
    lines.push([`${statistic.label}, ${meanName(statistic)}`, exact(mean), '']);
    lines.push(['Highest', value(found.highest), member(found.highest)]);
    lines.push(['Lowest', value(found.lowest), member(found.lowest)]);
  }
  if (found.zeros) {
    lines.push(['Exactly 0', `${whole(found.zeros)} of ${whole(rows.length)} layers`, '']);
  }
  return [
    element(
      'div', {class: 'tooltip-title'},
      `${brief(groupName(group))} (${whole(rows.length)} layers)`),
    element('dl', {class: 'of-group'}, ...lines.flatMap(([name, text, of]) => [
      element('dt', {}, name), element('dd', {}, text), element('dd', {class: 'of'}, of)])),
  ];
}

// One column of an answer, as an answer.
function only(answer, column) {
  const columns = answer.first_step.length;
  const rows = answer.variables.length;
  const pick = ({values}) =>
    ({values: Float32Array.from({length: rows}, (_, row) => values[row * columns + column])});
  return {
    statistic: answer.statistic, first_step: [0],
    mean: pick(answer.mean), nonfinite: pick(answer.nonfinite),
  };
}
