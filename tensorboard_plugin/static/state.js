// What the page shows, as one flat object that fits into an address.

const text = {read: (value) => value, write: (value) => value};
const number = {
  read: (value) => (value !== '' && Number.isFinite(Number(value)) ? Number(value) : null),
  write: String,
};
const list = {
  read: (value) => {
    try {
      const found = JSON.parse(value);
      return Array.isArray(found) ? found.filter((one) => typeof one === 'string') : [];
    } catch {
      return [];
    }
  },
  write: (value) => JSON.stringify(value),
};
const oneOf = (...choices) => ({
  read: (value) => (choices.includes(value) ? value : choices[0]), write: (value) => value,
});

/** The fields of an address: what each is at first, and how it is written. */
const FIELDS = {
  view: ['overview', oneOf('overview', 'layers', 'optimizer', 'replicas', 'health', 'compare')],
  run: [null, text],
  statistic: ['update_ratio', text],
  start: [null, number],
  end: [null, number],
  // Overview.
  layer: [null, text],
  filter: ['', text],
  sort: ['model', oneOf('model', 'highest', 'lowest')],
  collapsed: [[], list],
  // Layers.
  layers: [[], list],
  scale: ['auto', oneOf('auto', 'log', 'linear')],
  horizontal: ['step', oneOf('step', 'relative', 'wall')],
  smoothing: [0, number],
  quantity: ['gradient', text],
  // Health.
  hiddenSeverities: [[], list],
  // Compare.
  runs: [[], list],
  difference: ['', text],
  // Everywhere: charts that stay at the top, each as JSON.
  pins: [[], list],
};

/** The state of a page that nobody has touched. */
export function initialState() {
  return Object.fromEntries(
    Object.entries(FIELDS).map(([name, [value]]) => [name, structuredClone(value)]));
}

/** The part of a state that is not as it was at first, as texts by name. */
export function toParameters(state) {
  const found = {};
  for (const [name, [value, {write}]] of Object.entries(FIELDS)) {
    const now = state[name];
    if (now === null || JSON.stringify(now) === JSON.stringify(value)) continue;
    found[name] = write(now);
  }
  return found;
}

/** A state from texts by name; what makes no sense is left as it was at first. */
export function fromParameters(parameters) {
  const state = initialState();
  for (const [name, [, {read}]] of Object.entries(FIELDS)) {
    if (name in parameters) state[name] = read(parameters[name]);
  }
  if (state.start === null || state.end === null || !(state.start <= state.end)) {
    state.start = state.end = null;
  }
  return state;
}
