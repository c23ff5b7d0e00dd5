// Health: what the rules found in a run, worst first, each with a way to the place on the page.

import {link} from '../address.js';
import {askJson} from '../api.js';
import {element} from '../dom.js';
import {SEVERITIES, coverage, described, lookedAt, placeOf, steps} from '../findings.js';
import {count} from '../format.js';
import {toParameters} from '../state.js';
import {View} from './view.js';

// Of a finding's layers, so many are listed until all are asked for.
const FIRST_LAYERS = 4;

// The badge is asked for behind everything that a person waits for.
const IDLE_MILLISECONDS = 200;

const MOST_LETTERS = 64;

const VIEW_TITLES = {
  overview: 'Overview', layers: 'Layers', optimizer: 'Optimizer', replicas: 'Replicas',
};

export class Health extends View {
  constructor(page) {
    super(page, 'health', 'Health');
    this.state.findings = null; // For tests and scripts: how many the badge tells.
    this.heading = element('h1', {});
    this.summary = element('p', {class: 'description'});
    this.severities = element(
      'div', {class: 'severities', role: 'group', aria: {label: 'Severities shown'}});
    this.list = element('ol', {class: 'findings'});
    this.missing = element('p', {class: 'missing'});
    this.root.append(
      element(
        'div', {class: 'caption'},
        element('div', {class: 'words'}, this.heading, this.summary), this.severities),
      element('div', {class: 'charts', tabIndex: -1}, this.list, this.missing));
  }

  get fields() {
    return ['run'];
  }

  async load(signal) {
    const {page} = this;
    clearTimeout(this.timer);
    const key = this.#key();
    if (this.answerKey !== key) {
      const answer = await askJson('health', {run: page.run.name}, signal);
      this.#keep(answer, key);
    }
    page.notice(this.answer.problems);
    this.#show();
    page.say(null);
  }

  idle() {
    clearTimeout(this.timer);
    const key = this.#key();
    if (key === this.answerKey) return;
    if (this.badgeRun !== this.state.run) this.#badge(null);
    if (!this.page.run) return;
    this.timer = setTimeout(() => this.#look(key), IDLE_MILLISECONDS);
  }

  // Another one once the run has other records.
  #key() {
    return JSON.stringify(this.page.run || null);
  }

  async #look(key) {
    if (this.background) this.background.abort();
    this.background = new AbortController();
    try {
      const answer = await askJson('health', {run: this.state.run}, this.background.signal);
      if (this.#key() === key) this.#keep(answer, key);
    } catch {
      // No badge; the view itself says what is wrong once it is opened.
    }
  }

  #keep(answer, key) {
    this.answer = answer;
    this.answerKey = key;
    this.#badge(answer.findings.length);
  }

  #badge(amount) {
    this.badgeRun = this.state.run;
    this.state.findings = amount;
    this.page.tabs.badge('health', amount || 0);
  }

  #show() {
    const {answer, page, state} = this;
    const {findings} = answer;
    const {sound, missing} = coverage(page.run, answer);
    const healthy = !findings.length;
    this.root.classList.toggle('healthy', healthy);
    this.root.querySelector('.calm')?.remove();
    this.heading.textContent = healthy ? '' : count(findings.length, 'finding');
    this.summary.textContent = healthy ? '' : lookedAt(answer, page.run);
    this.root.querySelector('.caption').hidden = healthy;
    this.missing.textContent = missing;
    this.severities.replaceChildren(...SEVERITIES
      .filter(({name}) => findings.some(({severity}) => severity === name))
      .map((severity) => this.#toggle(severity)));
    if (healthy) {
      this.list.replaceChildren();
      this.list.before(calm(sound, answer, page.run));
      return;
    }
    const shown = findings.filter(({severity}) => !state.hiddenSeverities.includes(severity));
    this.list.replaceChildren(...shown.map((finding) => this.#card(finding)));
    if (!shown.length) {
      this.list.append(element(
        'li', {class: 'quiet'}, 'All findings are hidden. Choose a severity at the top.'));
    }
  }

  #toggle({name, label, plural, sign}) {
    const {findings} = this.answer;
    const amount = findings.filter(({severity}) => severity === name).length;
    const shown = !this.state.hiddenSeverities.includes(name);
    return element(
      'button',
      {
        type: 'button', class: `severity ${name}`, dataset: {severity: name},
        aria: {pressed: shown},
        onclick: () => {
          const hidden = this.state.hiddenSeverities.filter((one) => one !== name);
          this.page.note({hiddenSeverities: shown ? [...hidden, name] : hidden});
          this.#show();
          this.severities.querySelector(`[data-severity="${name}"]`).focus();
        },
      },
      icon(name, sign), `${amount} ${amount === 1 ? label : plural}`);
  }

  #card(finding) {
    const severity = SEVERITIES.find(({name}) => name === finding.severity) || SEVERITIES[2];
    const facts = finding.layers.length ? null : numbersOf(finding);
    return element(
      'li', {},
      element(
        'article', {class: `finding ${severity.name}`, dataset: {rule: finding.rule}},
        icon(severity.name, severity.sign),
        element(
          'div', {class: 'finding-body'},
          element(
            'p', {class: 'kind'}, element('strong', {}, severity.label), ' · ',
            finding.rule.replaceAll('_', ' '), ' · ',
            steps(finding.first_step, finding.last_step)),
          element('h2', {}, finding.message),
          facts, finding.layers.length ? this.#layers(finding) : null,
          element(
            'dl', {class: 'reasons'},
            element('dt', {}, 'Why it matters'), element('dd', {}, finding.why),
            element('dt', {}, 'What to try'), element('dd', {}, finding.advice)),
          this.#link(finding))));
  }

  // The worst layers with their steps and numbers; the others once they are asked for.
  #layers(finding) {
    const {layers, layer_count: all} = finding;
    const names = described(layers[0].numbers).map(([label]) => label);
    const body = element('tbody', {});
    const row = ({path, first_step: first, last_step: last, numbers}) => element(
      'tr', {},
      element('th', {scope: 'row'}, this.#layerLink(finding, path)),
      element('td', {}, steps(first, last).replace(/^Steps? /, '')),
      ...described(numbers).map(([, text]) => element('td', {}, text)));
    body.append(...layers.slice(0, FIRST_LAYERS).map(row));
    const table = element(
      'table', {class: 'finding-layers'},
      element(
        'thead', {},
        element(
          'tr', {}, ...['Layer', 'Steps', ...names].map((name) =>
            element('th', {scope: 'col'}, name)))),
      body);
    const more = all - Math.min(FIRST_LAYERS, layers.length);
    if (!more) return table;
    const button = element('button', {
      type: 'button', class: 'link more', aria: {expanded: false},
      onclick: () => {
        body.append(...layers.slice(FIRST_LAYERS).map(row));
        const left = all - layers.length;
        button.replaceWith(left
          ? element('p', {class: 'quiet'}, `and ${count(left, 'more layer')} not listed`) : '');
        body.rows[FIRST_LAYERS]?.querySelector('a').focus();
      },
    }, `and ${more} more`);
    return element('div', {}, table, button);
  }

  #layerLink(finding, path) {
    const shown = path.length > MOST_LETTERS ? `…${path.slice(1 - MOST_LETTERS)}` : path;
    return this.#to(placeOf(finding, this.page.run, this.#views, path), 'path', shown, path);
  }

  #link(finding) {
    const place = placeOf(finding, this.page.run, this.#views);
    return this.#to(place, 'show', `Show in ${VIEW_TITLES[place.view]}`, '');
  }

  get #views() {
    return new Set(this.page.views.map(({name}) => name));
  }

  // A link, so that it opens in a tab of its own, too.
  #to(place, kind, text, title) {
    return element('a', {
      class: kind, title, target: '_top', href: link(toParameters({...this.state, ...place})),
      onclick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        this.page.change(place);
      },
    }, text);
  }
}

function icon(name, sign) {
  return element('span', {class: `severity-icon ${name}`, aria: {hidden: true}}, sign);
}

function numbersOf({numbers}) {
  return element(
    'dl', {class: 'numbers'},
    ...described(numbers).map(([label, text]) =>
      element('div', {}, element('dt', {}, label), element('dd', {}, text))));
}

function calm(sound, answer, run) {
  const early = sound.length < 2;
  return element(
    'div', {class: 'calm', role: 'status'},
    element('span', {class: 'severity-icon sound', aria: {hidden: true}}, '✓'),
    element('h1', {}, early ? 'Nothing wrong so far' : 'No findings'),
    element('p', {}, lookedAt(answer, run)),
    element('ul', {}, ...sound.map((sentence) => element('li', {}, sentence))));
}
