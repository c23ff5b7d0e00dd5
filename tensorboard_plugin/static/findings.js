// What a finding's JSON says, as words and places: severities, numbers, links, what no rule saw.
//
// The rules live in `tensorboard_plugin/health`; nothing here judges.

import {count, number, whole} from './format.js';

/** Severities, worst first; signs differ in shape, so that colour alone tells nothing. */
export const SEVERITIES = [
  {name: 'error', label: 'Error', plural: 'Errors', sign: '×'},
  {name: 'warning', label: 'Warning', plural: 'Warnings', sign: '!'},
  {name: 'note', label: 'Note', plural: 'Notes', sign: 'i'},
];

// Rules skip a run's beginning, and want a condition to last, as in `health/evidence.py`.
const STARTUP_STEPS = 100;
const STARTUP_SHARE = 0.05;
const LASTING = {records: 20, steps: 100};

// Layers that a link opens at once, as lines.
const MOST_LINES = 4;

const percent = (value) => `${number(100 * value, 3)} %`;
const seconds = (value) => (value < 1 ? `${number(1000 * value, 3)} ms` : `${number(value, 3)} s`);
const short = (value) => number(value, 3);

const NUMBERS = {
  records: ['Records', whole],
  recorded: ['Records with a gradient', whole],
  elements: ['Elements not finite', whole],
  share: ['Share', percent],
  median: ['Median', short],
  factor: ['Factor', short],
  usual: ['Usual', short],
  peak: ['Peak', short],
  rms: ['Root mean square', short],
  root: ['Second moment, root', short],
  epsilon: ['Epsilon', short],
  skipped: ['Skipped steps', whole],
  steps: ['Steps', whole],
  start: ['At first', short],
  lowest: ['Lowest', short],
  highest: ['Highest', short],
  last: ['Last', short],
  replica: ['Replica', String],
  others: ['Others, median', short],
  wait: ['Its time in the reduction', seconds],
  others_wait: ['That of the others', seconds],
  noise_scale: ['Noise scale, examples', short],
  batch: ['Batch, examples', whole],
  median_factor: ['Median factor', short],
  gradient_norm: ['Gradient norm, median', short],
  norm_p90: ['Gradient norm, 90th percentile', short],
};

/** A finding's numbers for people: `[label, text]` each. JSON has texts for NaN and infinity. */
export function described(numbers) {
  return Object.entries(numbers).map(([name, value]) => {
    const [label, show] = NUMBERS[name] || [name.replaceAll('_', ' '), short];
    const size = Number(value);
    return [label, Number.isFinite(size) ? show(size) : number(size)];
  });
}

/** "Step 5" or "Steps 5 to 10". */
export function steps(first, last) {
  return first === last ? `Step ${whole(first)}` : `Steps ${whole(first)} to ${whole(last)}`;
}

/**
 * The change of the page's state that leads to a finding.
 * @param {object} finding
 * @param {object} run What the route `runs` says of the run.
 * @param {Set<string>} views Names of the views that there are.
 * @param {?string} path The layer to show; without it the finding's own.
 */
export function placeOf({link, layers}, run, views, path = null) {
  const wanted = link.view === 'layer' ? 'layers' : link.view;
  const view = views.has(wanted) ? wanted : 'overview';
  const layer = path === null ? link.variable : path;
  const place = {view, start: link.start, end: link.end};
  if (run.statistics.some(({name}) => name === link.statistic)) place.statistic = link.statistic;
  if (view === 'layers' && layer !== null) {
    place.layers = path === null ? layers.slice(0, MOST_LINES).map((one) => one.path) : [path];
  }
  // A filter or a folded block would hide the layer.
  if (view === 'overview') Object.assign(place, {layer, filter: '', collapsed: []});
  return place;
}

// What the rules look at, by subject: the tag that must be there, whether the condition has to
// last, and how many replicas it takes.
const SUBJECTS = [
  {
    name: 'weights and gradients', tag: 'disttrain/layers', lasting: false,
    sound: 'Weights are finite; overflows of a loss scale were skipped, if there were any.',
  },
  {
    name: 'gradients', tag: 'disttrain/layers', lasting: true,
    sound: 'No gradient explodes, vanishes or is missing.',
  },
  {
    name: 'updates', tag: 'disttrain/layers', lasting: true,
    sound: 'Every layer moves, none by far too much or too little.',
  },
  {
    name: 'the optimizer', tag: 'disttrain/steps', lasting: true,
    sound: 'Clip, epsilon and loss scale do what they are for; few steps are skipped.',
  },
  {
    name: 'the loss', tag: 'disttrain/steps', lasting: true,
    sound: 'The loss falls and stays down.',
  },
  {
    name: 'batch size', tag: 'disttrain/steps', lasting: true, replicas: 2,
    sound: 'The batch suits the gradient noise scale.',
  },
  {
    name: 'replicas', tag: 'disttrain/replicas', lasting: true, replicas: 2,
    sound: 'No replica diverges or keeps the others waiting.',
  },
];

/**
 * What the rules could look at, and what not.
 * @returns {{sound: string[], missing: string}} A sentence for each subject that was checked, true
 *     where there is no finding; and one on the rest, '' where there is none.
 */
export function coverage(run, answer) {
  const reasons = new Map();
  const sound = [];
  for (const subject of SUBJECTS) {
    const reason = whyNot(subject, run, answer);
    if (reason === null) sound.push(subject.sound);
    else reasons.set(reason, [...(reasons.get(reason) || []), subject.name]);
  }
  const parts = [...reasons].map(([reason, names]) => `${joined(names)} (${reason})`);
  return {sound, missing: parts.length ? `Not checked: ${parts.join('; ')}.` : ''};
}

function whyNot({tag, lasting, replicas = 0}, run, {records, first_step: first, last_step: last}) {
  if (run.replicas < replicas) return 'this run has one replica';
  if (!run.tags.includes(tag)) {
    const how = tag === 'disttrain/replicas' ? '; Telemetry(per_replica=True) records it' : '';
    return `${tag} was not recorded${how}`;
  }
  const begin = Math.max(STARTUP_STEPS, Math.floor(STARTUP_SHARE * last), first - 1);
  const settled = (records * (last - begin)) / Math.max(1, last - first);
  if (lasting && (settled < LASTING.records || last - begin < LASTING.steps)) {
    return `too early: it takes ${LASTING.records} records over ${LASTING.steps} steps after ` +
      `the first ${whole(begin)}`;
  }
  return null;
}

function joined(names) {
  const last = names[names.length - 1];
  return names.length > 1 ? `${names.slice(0, -1).join(', ')} and ${last}` : last;
}

/** How much the rules looked at, as a sentence. */
export function lookedAt({records, looked_at: seen, first_step: first, last_step: last}, run) {
  if (first === null) return 'There is no record yet.';
  const amount = seen < records ? `${whole(seen)} of ${count(records, 'record')}` :
    count(records, 'record');
  return `The rules looked at ${amount} of ${count(run.variables, 'variable')}, ` +
    `${steps(first, last).toLowerCase()}.`;
}
