// The page's controller: which view of which run is shown, when data is asked for, and what is said
// where there is none. What a view shows is its own.

import {link, readAddress, writeAddress} from './address.js';
import {askJson} from './api.js';
import {element} from './dom.js';
import {followReloads, followSize, followTheme} from './host.js';
import {
  errorMessage, loadingMessage, noRecordsMessage, noRunsMessage, problemsNotice,
} from './messages.js';
import {Pins} from './pins.js';
import {Share} from './share.js';
import {fromParameters, toParameters} from './state.js';
import {Tabs} from './tabs.js';
import {Toolbar} from './toolbar.js';
import {Tooltip} from './tooltip.js';

export class Page {
  /** @param {function(Page): View[]} makeViews The views, in the order of their tabs. */
  constructor(makeViews) {
    // What tests and scripts may look at; canvases have nothing to query.
    this.state = {
      ...fromParameters(readAddress()), rows: 0, columns: 0, sampled: false, exact: false,
      ready: false, error: null,
    };
    window.disttrainState = this.state;
    this.runs = [];
    this.limits = {};
    this.tooltip = new Tooltip();
    this.#build(makeViews(this));
    this.#listen();
  }

  /** What the route `runs` says of the chosen run. */
  get run() {
    return this.runs.find(({name}) => name === this.state.run);
  }

  /** The view that is shown. */
  get view() {
    return this.views.find(({name}) => name === this.state.view);
  }

  /** The part of the window that views have for themselves. */
  get size() {
    return {width: this.main.clientWidth, height: this.main.clientHeight};
  }

  /** A link to what is shown. */
  get link() {
    return link(toParameters(this.state));
  }

  /** Asks for the runs and shows one of them; keeps what is chosen where it still exists. */
  async load() {
    this.stale = false;
    await this.#busily(async (signal) => {
      const {runs, limits} = await askJson('runs', {}, signal);
      this.runs = runs;
      this.limits = limits;
      if (runs.length && !this.run) {
        Object.assign(this.state, {run: runs[0].name, start: null, end: null});
      }
      if (!runs.length) this.state.run = this.loaded = null;
      this.toolbar.showRuns(runs, this.state.run);
      this.tabs.root.hidden = !runs.length;
      if (!runs.length) this.say(noRunsMessage());
      else if (this.#key() !== this.loaded) await this.#loadView(signal);
    });
  }

  /** Changes the state and shows what it names now; the address follows. */
  async change(changes) {
    const view = this.state.view;
    Object.assign(this.state, changes);
    this.note();
    if (this.state.view !== view) this.tooltip.hide();
    await this.reload();
  }

  /** Changes parts of the state that nothing has to be asked for. */
  note(changes = {}) {
    Object.assign(this.state, changes);
    writeAddress(toParameters(this.state));
  }

  /** Shows what the state names, from the beginning. */
  async reload() {
    await this.#busily((signal) => this.#loadView(signal));
  }

  /** Shows only the steps of a range `[first, last]`, or all of them where it is null. */
  zoom(range) {
    const [start, end] = range || [null, null];
    if (start === this.state.start && end === this.state.end) return;
    this.tooltip.hide();
    this.change({start, end});
  }

  /** Puts the vertical cursor of all charts at a step, or takes it away where it is null. */
  setCursor(step) {
    this.view.setCursor(step);
    this.pins.setCursor(step);
  }

  /** Shows a message in the view's place, or the view where there is none. */
  say(message) {
    this.content.hidden = message !== null;
    this.place.replaceChildren(...(message ? [message] : []));
  }

  /** Shows what of the run cannot be read: `{tag, message}` each; none of them twice. */
  notice(problems) {
    const found = new Map(problems.map((problem) => [JSON.stringify(problem), problem]));
    const notice = problemsNotice([...found.values()]);
    this.noticePlace.replaceChildren(...(notice ? [notice] : []));
  }

  // What is on the page, with the run's newest step: the same key needs no second look.
  #key() {
    const fields = this.view.fields.map((name) => this.state[name]);
    return JSON.stringify([this.state.view, fields, this.size.width, this.run]);
  }

  async #loadView(signal) {
    this.loaded = null;
    const {run, view} = this;
    for (const other of this.views) {
      other.root.hidden = other.controls.hidden = other !== view;
    }
    this.tabs.choose(view.name);
    if (!run) return;
    if (!run.statistics.length || run.last_step < 0) {
      this.notice(run.problems);
      this.say(noRecordsMessage(run.problems.length > 0));
      return;
    }
    await view.load(signal);
    await this.pins.load(signal);
    this.loaded = this.#key();
  }

  async #busily(action) {
    if (this.request) this.request.abort();
    this.request = new AbortController();
    this.state.ready = false;
    this.state.error = null;
    this.root.setAttribute('aria-busy', 'true');
    try {
      await action(this.request.signal);
      this.state.ready = true;
      for (const view of this.views) view.idle();
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.loaded = null;
      this.state.error = error.message;
      this.say(errorMessage(error, () => this.load()));
    }
    this.root.setAttribute('aria-busy', 'false');
  }

  #resized() {
    if (this.stale || !this.started) {
      this.started = true;
      this.load();
    } else if (!this.content.hidden) {
      this.pins.layout();
      this.view.layout();
    }
  }

  #build(views) {
    this.views = views;
    this.toolbar = new Toolbar({
      onRun: (run) => this.change({run, start: null, end: null}),
    });
    this.tabs = new Tabs(views, (name) => this.change({view: name}));
    this.toolbar.root.append(...views.map(({controls}) => controls), new Share(this).root);
    this.pins = new Pins(this);
    this.content = element(
      'div', {class: 'content', hidden: true}, ...views.map(({root}) => root));
    this.noticePlace = element('div', {});
    this.place = element('div', {class: 'place'}, loadingMessage());
    this.main = element('main', {}, this.noticePlace, this.place, this.content);
    this.root = element(
      'div', {class: 'page'}, this.toolbar.root, this.tabs.root, this.pins.root, this.main,
      this.tooltip.root);
    document.body.append(this.root);
  }

  #listen() {
    followTheme(() => {
      this.pins.draw();
      this.view.draw();
    });
    followReloads(() => {
      // A hidden tab's frame has no size; it asks once it is seen again.
      if (this.main.clientWidth > 0) this.load();
      else this.stale = true;
    });
    followSize(this.main, () => this.#resized());
  }
}
