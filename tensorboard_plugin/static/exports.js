// What the numbers of a view are, as files.

import {askFile} from './api.js';
import {askRuns, differencesFile} from './runfiles.js';

// As many buckets of steps as an export of many layers may have.
const CELLS = 60000;

/**
 * The files that a person may want of what is shown.
 * @param {Page} page
 * @returns {Array<{label: string, ask: function(string): Promise<{blob: Blob, name: string}>}>}
 *     `ask` gets "csv" or "json".
 */
export function exportsOf(page) {
  const {run, state, view} = page;
  if (!run) return [];
  const {start, end} = state;
  const common = {run: run.name, start, end};
  const most = (rows) => Math.max(1, Math.min(page.limits.columns, Math.floor(CELLS / rows)));
  const one = (label, parameters) => ({
    label, ask: (format) => askFile('export', {...common, ...parameters, format}),
  });
  const steps = one('The run’s lines', {what: 'steps'});
  if (view.name === 'overview') {
    const columns = Math.min(state.columns || 1, most(run.variables));
    return [one('Heatmap', {what: 'heatmap', statistic: state.statistic, columns}), steps];
  }
  if (view.name === 'layers' && view.drawn?.length) {
    const variable = view.drawn.map(({path}) => path);
    const statistic = run.statistics.map(({name}) => name);
    const columns = most(variable.length * statistic.length);
    return [one('Lines of the layers', {what: 'series', variable, statistic, columns})];
  }
  if (view.name === 'replicas' && run.replica_quantities.length) {
    const columns = most(run.replicas * run.replica_quantities.length);
    return [one('Replicas', {what: 'replicas', columns})];
  }
  if (view.name === 'compare') return exportsOfRuns(view, state, most);
  return view.name === 'optimizer' ? [steps] : [];
}

// The heatmaps as they are or their differences, and the lines, of all runs that are compared.
function exportsOfRuns({answers, runs, stack}, {start, end, statistic}, most) {
  if (!answers || runs.length < 2) return [];
  const several = (label, having, parameters) => (having.length ? [{
    label, ask: (format) => askRuns(
      having.map(({name}) => name), {...parameters, start, end, format}),
  }] : []);
  const differences = stack.cells.map(({difference}) => difference).filter(Boolean);
  const drawn = answers.filter(({heat}) => heat?.records);
  const rows = Math.max(1, ...drawn.map(({run}) => run.variables)) * drawn.length;
  const columns = Math.min(most(rows), Math.max(1, ...drawn.map(({heat}) => heat.first_step.length)));
  return [
    ...(differences.length ? [{
      label: 'Differences',
      ask: async (format) => differencesFile(differences, stack.statistic, format),
    }] : several('Heatmaps', drawn, {what: 'heatmap', statistic, columns})),
    ...several('The runs’ lines', answers.filter(({steps}) => steps?.records), {what: 'steps'}),
  ];
}
