// The menu of what a person takes along: a link to what is shown, its numbers, its picture.

import {element} from './dom.js';
import {exportsOf} from './exports.js';
import {paint} from './picture.js';

export class Share {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.button = element(
      'button', {class: 'plain share', type: 'button', onclick: () => this.#toggle(),
        aria: {haspopup: 'menu', expanded: false}}, 'Share');
    this.menu = element('div', {class: 'menu', role: 'menu', hidden: true});
    this.said = element('span', {class: 'said', role: 'status'});
    this.root = element('div', {class: 'share-box'}, this.said, this.button, this.menu);
    this.#listen();
  }

  #toggle(open = this.menu.hidden) {
    this.menu.hidden = !open;
    this.button.setAttribute('aria-expanded', open);
    if (!open) return;
    this.menu.replaceChildren(...this.#items());
    this.menu.firstElementChild.focus();
  }

  #items() {
    const {page} = this;
    const item = (label, action) => element(
      'button', {class: 'item', type: 'button', role: 'menuitem', tabIndex: -1,
        onclick: () => {
          this.#toggle(false);
          this.button.focus();
          action();
        }}, label);
    const files = exportsOf(page).flatMap(({label, ask}) =>
      ['csv', 'json'].map((format) => item(
        `${label} as ${format.toUpperCase()}`, () => this.#numbers(() => ask(format)))));
    return [
      item('Copy link to this view', () => this.#copy()),
      item('Picture as PNG', () => this.#picture()),
      ...files,
    ];
  }

  async #copy() {
    const {link} = this.page;
    try {
      await navigator.clipboard.writeText(link);
      this.#say('Link copied');
    } catch {
      // Without a secure connection there is no clipboard; the address bar has the same link.
      this.#say('Copy the link from the address bar');
    }
  }

  async #picture() {
    const {page} = this;
    const canvas = paint(page.content, titleOf(page));
    keep(await new Promise((made) => { canvas.toBlob(made, 'image/png'); }), 'disttrain.png');
  }

  async #numbers(ask) {
    try {
      const {blob, name} = await ask();
      keep(blob, name);
    } catch (error) {
      this.#say(error.message);
    }
  }

  #say(text) {
    this.said.textContent = text;
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => { this.said.textContent = ''; }, 4000);
  }

  #listen() {
    this.menu.addEventListener('keydown', (event) => {
      const items = [...this.menu.children];
      const place = items.indexOf(document.activeElement);
      const goes = {
        ArrowDown: (place + 1) % items.length,
        ArrowUp: (place + items.length - 1) % items.length,
        Home: 0, End: items.length - 1,
      };
      if (event.key in goes) items[goes[event.key]].focus();
      else if (event.key === 'Escape') {
        this.#toggle(false);
        this.button.focus();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
    document.addEventListener('pointerdown', (event) => {
      if (!this.menu.hidden && !this.root.contains(event.target)) this.#toggle(false);
    });
    this.root.addEventListener('focusout', (event) => {
      if (!this.menu.hidden && !this.root.contains(event.relatedTarget)) this.#toggle(false);
    });
  }
}

// What a picture of the page is of.
function titleOf({view, state: {run, start, end}}) {
  const steps = start === null ? '' : `, steps ${start} to ${end}`;
  return `${view.subject ?? run}: ${view.title}${steps}`;
}

// Lets a person keep a file.
function keep(blob, name) {
  const href = URL.createObjectURL(blob);
  element('a', {href, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(href), 10000);
}
