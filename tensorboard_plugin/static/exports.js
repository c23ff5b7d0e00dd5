// What the numbers of a view are, as the server exports them.

// As many buckets of steps as an export of many layers may have.
const CELLS = 60000;

/**
 * The files that a person may want of what is shown.
 * @param {Page} page
 * @returns {Array<{label: string, parameters: object}>} Parameters of the route `export`.
 */
export function exportsOf(page) {
  const {run, state, view} = page;
  if (!run) return [];
  const {start, end} = state;
  const common = {run: run.name, start, end};
  const most = (rows) => Math.max(1, Math.min(page.limits.columns, Math.floor(CELLS / rows)));
  const steps = {label: 'The run’s lines', parameters: {...common, what: 'steps'}};
  if (view.name === 'overview') {
    const columns = Math.min(state.columns || 1, most(run.variables));
    const parameters = {...common, what: 'heatmap', statistic: state.statistic, columns};
    return [{label: 'Heatmap', parameters}, steps];
  }
  if (view.name === 'layers' && view.drawn.length) {
    const variable = view.drawn.map(({path}) => path);
    const statistic = run.statistics.map(({name}) => name);
    const columns = most(variable.length * statistic.length);
    return [{
      label: 'Lines of the layers',
      parameters: {...common, what: 'series', variable, statistic, columns},
    }];
  }
  if (view.name === 'replicas' && run.replica_quantities.length) {
    const columns = most(run.replicas * run.replica_quantities.length);
    return [{label: 'Replicas', parameters: {...common, what: 'replicas', columns}}];
  }
  return view.name === 'optimizer' ? [steps] : [];
}
