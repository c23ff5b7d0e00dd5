// The row of tabs, one for each view.

import {element} from './dom.js';

export class Tabs {
  /**
   * @param {View[]} views
   * @param {function(string)} onChoose Called with a view's name.
   */
  constructor(views, onChoose) {
    this.buttons = views.map(({name, title}) => element(
      'button',
      {class: 'tab', type: 'button', role: 'tab', id: `tab-${name}`, dataset: {view: name},
        aria: {controls: `view-${name}`}, onclick: () => onChoose(name)},
      title));
    this.root = element(
      'div', {class: 'tabs', role: 'tablist', hidden: true, aria: {label: 'Views'}},
      ...this.buttons);
    this.root.addEventListener('keydown', (event) => {
      const place = this.buttons.indexOf(document.activeElement);
      const last = this.buttons.length - 1;
      const goes = {
        ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place ? place - 1 : last,
        Home: 0, End: last,
      };
      if (!(event.key in goes)) return;
      event.preventDefault();
      this.buttons[goes[event.key]].focus();
      this.buttons[goes[event.key]].click();
    });
  }

  /** Marks the view that is shown. */
  choose(name) {
    for (const button of this.buttons) {
      const chosen = button.dataset.view === name;
      button.setAttribute('aria-selected', chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
  }

  /** Puts a number behind a view's title, such as that of its findings; none for 0. */
  badge(name, amount) {
    const button = this.buttons.find(({dataset}) => dataset.view === name);
    button.querySelector('.badge')?.remove();
    if (amount) button.append(element('span', {class: 'badge'}, String(amount)));
  }
}
