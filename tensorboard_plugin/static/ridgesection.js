// The histograms of the chosen layers: a panel of ridges for each, or why there is none.

import {element, field} from './dom.js';
import {count, whole} from './format.js';
import {occupied, readRidges} from './histograms.js';
import {swatch} from './layercolors.js';
import {Ridgelines} from './ridgelines.js';

const HOW = 'disttrain.Telemetry(every=10, histograms_every=500)';

export class RidgeSection {
  /**
   * @param {{onPoint: function(?Node[], number, number, boolean), onQuantity: function(string)}}
   *     listeners
   */
  constructor({onPoint, onQuantity}) {
    this.onPoint = onPoint;
    this.select = element('select', {
      class: 'quantity', onchange: () => onQuantity(this.select.value),
    });
    this.choice = field('Quantity', this.select);
    this.description = element('p', {class: 'quiet'});
    this.body = element('div', {class: 'ridge-grid'});
    this.root = element(
      'section', {class: 'ridge-section', aria: {label: 'Histograms'}},
      element('div', {class: 'heading'}, element('h2', {}, 'Histograms'), this.choice),
      this.description, this.body);
    this.panels = [];
  }

  /** Offers quantities; `{name, label}` each. */
  fillQuantities(quantities, chosen) {
    this.choice.hidden = !quantities.length;
    const names = quantities.map(({name}) => name);
    if (String(this.names) !== String(names)) {
      this.select.replaceChildren(...quantities.map(({name, label}) =>
        element('option', {value: name}, label)));
    }
    this.names = names;
    this.select.value = names.includes(chosen) ? chosen : names[0];
  }

  /**
   * @param {{answer: ?object, missing: string, message: string}} counted An answer of `histograms`
   *     or why there is none.
   * @param {object[]} variables Those that are drawn.
   * @param {Map<string, number>} places
   * @param {{start: ?number, end: ?number}} zoom
   * @param {StepAxis} axis Of the answer's columns.
   */
  show({answer, missing, message}, variables, places, {start, end}, axis) {
    this.panels = [];
    if (!answer || !answer.records) {
      this.description.textContent = '';
      this.body.replaceChildren(...this.#reason(missing, message, start, end));
      return;
    }
    const layers = variables.map(({path}) => {
      const index = answer.variables.indexOf(path);
      return index < 0 ? {exponents: [], ridges: []} : readRidges(answer, index);
    });
    const range = occupied(layers) || [-10, 0];
    const most = Math.ceil(axis.records / axis.columns);
    const mean = axis.bucketed
      ? ` A ridge is the mean of up to ${count(most, 'histogram')}; zoom in for each.` : '';
    this.description.textContent =
      `${answer.quantity.description} Magnitudes across, each ridge the share of elements in ` +
      `bins of a power of two, the newest step below and in front.${mean}`;
    const panels = variables.map(({path}, index) => {
      const heading = element(
        'div', {class: 'heading'}, swatch(places.get(path)),
        element('span', {class: 'name', title: path.slice(0, 1000)}, path));
      if (!layers[index].ridges.length) {
        const none = `Of this layer no ${answer.quantity.label.toLowerCase()} were counted.`;
        return {root: element(
          'div', {class: 'ridge-panel'}, heading, element('p', {class: 'quiet'}, none))};
      }
      const ridges = new Ridgelines(this.onPoint);
      this.panels.push(ridges);
      return {
        root: element('div', {class: 'ridge-panel'}, heading, ridges.root),
        show: () => ridges.show(layers[index], axis, range, {
          path, place: places.get(path), quantity: answer.quantity,
        }),
      };
    });
    this.body.replaceChildren(...panels.map(({root}) => root));
    // A canvas knows its width once it is in the page.
    for (const {show} of panels) if (show) show();
  }

  /** Draws with the theme's colours and the present width. */
  draw() {
    for (const panel of this.panels) panel.draw();
  }

  #reason(missing, message, start, end) {
    if (missing === 'error') return [element('p', {class: 'quiet', role: 'alert'}, message)];
    if (missing === 'run') {
      return [
        element('p', {class: 'quiet'}, 'This run recorded no histograms. Record some with'),
        element('pre', {}, HOW),
      ];
    }
    if (missing === 'layers') {
      return [element(
        'p', {class: 'quiet'},
        'No histograms were recorded of these layers; others of this run have some.')];
    }
    const text = start === null ? 'This run has no histogram yet.'
      : `No histogram was recorded from step ${whole(start)} to ${whole(end)}. Zoom out, or ` +
        'record them more often with a smaller histograms_every.';
    return [element('p', {class: 'quiet'}, text)];
  }
}
