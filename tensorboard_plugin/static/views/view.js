// What all views of the page have in common.

import {element} from '../dom.js';

export class View {
  /**
   * @param {Page} page Which shows one view at a time.
   * @param {string} name As in the address.
   * @param {string} title As on its tab.
   */
  constructor(page, name, title) {
    this.page = page;
    this.name = name;
    this.title = title;
    this.root = element('section', {
      class: `view ${name}`, role: 'tabpanel', id: `view-${name}`,
      hidden: true, aria: {labelledby: `tab-${name}`},
    });
    // Controls beside the run, shown with the view.
    this.controls = element('div', {class: 'controls', hidden: true});
  }

  get state() {
    return this.page.state;
  }

  /** The names of the state's fields that what is loaded depends on. */
  get fields() {
    return ['run', 'start', 'end'];
  }

  /**
   * Asks for what the state names, and shows it; errors go to the page.
   * @param {AbortSignal} signal Ends requests that have become useless.
   */
  async load(signal) {
    throw new Error(`${this.name} loads nothing (${signal})`);
  }

  /** Called of every view once the page shows what was asked for: the time for small extras. */
  idle() {}

  /** Puts the vertical cursor of all charts at a step, or takes it away. */
  setCursor(step) {
    void step;
  }

  /** Fits everything into the view's present size. */
  layout() {}

  /** Draws canvases again, with the theme's colours. */
  draw() {}
}
