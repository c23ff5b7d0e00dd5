// Small helpers for building the page. Text from runs goes through `textContent` alone.

/**
 * A new element.
 * @param {string} tag
 * @param {object} properties Set on the element as properties; `dataset` and `aria` (attributes
 *     without their prefix) are objects, `class` is its class name.
 * @param {...(Node|string|null)} children Strings become text nodes; null is left out.
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'class') node.className = value;
    else if (name === 'dataset') Object.assign(node.dataset, value);
    else if (name === 'aria') {
      for (const [key, text] of Object.entries(value)) node.setAttribute(`aria-${key}`, text);
    } else if (name === 'role') node.setAttribute('role', value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A labelled control, label above. */
export function field(label, control) {
  return element('label', {class: 'field'}, element('span', {}, label), control);
}

/** Sizes a canvas to its CSS box, in device pixels, and returns its context in CSS pixels. */
export function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** The value of a custom property of the page, which follows the theme. */
export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The font of text on canvases. */
export const CANVAS_FONT = '11px Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif';
