// What the page says when it has nothing to draw, and the notice of parts that cannot be read.

import {count} from './format.js';
import {element} from './dom.js';
import {brief} from './paths.js';

/** A centred message: heading, paragraphs, an optional snippet of code and button. */
export function message(kind, heading, paragraphs, {code = null, after = null, button = null} = {}) {
  return element(
    'div', {class: `message ${kind}`, role: kind === 'error' ? 'alert' : 'status'},
    element('h2', {}, heading),
    ...paragraphs.map((text) => element('p', {}, text)),
    code && element('pre', {}, code),
    after && element('p', {}, after),
    button);
}

export function loadingMessage() {
  return message('loading', 'Reading the runs…', []);
}

export function noRunsMessage() {
  return message(
    'empty', 'No run with disttrain data yet',
    ['Train with telemetry and a log directory, and point TensorBoard at that directory:'],
    {
      code: 'trainer = disttrain.Trainer(..., telemetry=disttrain.Telemetry(every=10),\n' +
        '                            logdir="runs/first")\n\n$ tensorboard --logdir runs',
      after: 'The page looks again whenever TensorBoard reloads its data.',
    });
}

export function noRecordsMessage(problems) {
  if (problems) {
    return message(
      'empty', 'Nothing in this run can be read',
      ['The notice above says what is wrong with its event file. Other runs are not affected: ' +
        'choose one at the top.']);
  }
  return message(
    'empty', 'This run has no recorded step yet',
    ['The first one appears here when TensorBoard next reloads its data.']);
}

export function noMatchMessage(text) {
  return message(
    'empty', 'No layer matches the filter',
    [`No variable’s path matches “${brief(text)}”. Clear the filter to see all layers.`]);
}

export function errorMessage(error, retry) {
  const button = element('button', {type: 'button', class: 'plain', onclick: retry}, 'Try again');
  return message('error', 'The data could not be read', [error.message], {button});
}

/** The notice of problems, or null where there are none. */
export function problemsNotice(problems) {
  if (!problems.length) return null;
  const summary = `${count(problems.length, 'part')} of this run cannot be read in full`;
  return element(
    'details', {class: 'notice'},
    element('summary', {}, summary),
    element('ul', {}, ...problems.map(({tag, message: text}) =>
      element('li', {}, element('code', {}, tag), `: ${text}`))));
}
