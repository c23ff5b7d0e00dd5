// The page's beginning: its styles, its views, and the page around them.

import {element} from './dom.js';
import {Page} from './page.js';
import {Compare} from './views/compare.js';
import {Health} from './views/health.js';
import {Layers} from './views/layers.js';
import {Optimizer} from './views/optimizer.js';
import {Overview} from './views/overview.js';
import {Replicas} from './views/replicas.js';

const STYLES = [
  './vendor/uPlot/uPlot.min.css', './index.css', './views.css', './layers.css', './overview.css',
  './stack.css', './optimizer.css', './replicas.css', './health.css', './compare.css',
  './share.css',
];

// Each of them is asked for at once, before the page itself is made.
const styled = Promise.all(STYLES.map(style));

function style(name) {
  return new Promise((loaded) => {
    const href = new URL(name, import.meta.url).href;
    const link = {rel: 'stylesheet', href, onload: loaded, onerror: loaded};
    document.head.append(element('link', link));
  });
}

/** What TensorBoard calls to start the page. */
export async function render() {
  document.title = 'disttrain';
  document.documentElement.lang = 'en';
  await styled;
  new Page((page) => [
    new Overview(page), new Layers(page), new Optimizer(page),
    new Replicas(page), new Health(page), new Compare(page),
  ]);
}
