// A picture of what is seen: canvases as they are, and texts at their places.

import {css} from './dom.js';

const SCALE = 2;

/**
 * Paints a part of the page into a canvas.
 * @param {Element} root
 * @param {string} title Written above it.
 * @returns {HTMLCanvasElement}
 */
export function paint(root, title) {
  const frame = root.getBoundingClientRect();
  const head = 34;
  const canvas = document.createElement('canvas');
  canvas.width = Math.ceil(frame.width * SCALE);
  canvas.height = Math.ceil((frame.height + head) * SCALE);
  const context = canvas.getContext('2d');
  context.scale(SCALE, SCALE);
  context.fillStyle = css('--page');
  context.fillRect(0, 0, frame.width, frame.height + head);
  context.fillStyle = css('--text');
  context.font = '500 14px Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif';
  context.textBaseline = 'middle';
  context.fillText(title, 20, head / 2 + 2, frame.width - 40);
  context.translate(-frame.left, head - frame.top);
  for (const node of visible(root)) {
    const style = getComputedStyle(node);
    clipped(context, node, root, () => {
      background(context, node, style);
      if (node instanceof HTMLCanvasElement) picture(context, node);
      for (const child of node.childNodes) {
        if (child.nodeType === Node.TEXT_NODE) text(context, child, style);
      }
    });
  }
  return canvas;
}

// Elements in the order in which they are painted, without what is hidden.
function* visible(node) {
  if (node.checkVisibility && !node.checkVisibility({visibilityProperty: true})) return;
  yield node;
  for (const child of node.children) yield* visible(child);
}

// Draws within the boxes around that hide what overflows them.
function clipped(context, node, root, draw) {
  context.save();
  for (let box = node.parentElement; box; box = box.parentElement) {
    if (getComputedStyle(box).overflow !== 'visible' || box === root) {
      const {left, top, width, height} = box.getBoundingClientRect();
      context.beginPath();
      context.rect(left, top, width, height);
      context.clip();
    }
    if (box === root) break;
  }
  draw();
  context.restore();
}

function background(context, node, style) {
  const {left, top, width, height} = node.getBoundingClientRect();
  if (style.backgroundColor !== 'rgba(0, 0, 0, 0)') {
    context.fillStyle = style.backgroundColor;
    context.fillRect(left, top, width, height);
  }
  const line = parseFloat(style.borderBottomWidth);
  if (line) {
    context.fillStyle = style.borderBottomColor;
    context.fillRect(left, top + height - line, width, line);
  }
}

function picture(context, canvas) {
  const {left, top, width, height} = canvas.getBoundingClientRect();
  if (canvas.width && canvas.height) context.drawImage(canvas, left, top, width, height);
}

// Each line of a text where the browser has put it.
function text(context, node, style) {
  if (!node.data.trim()) return;
  context.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  context.fillStyle = style.color;
  context.textBaseline = 'middle';
  context.textAlign = 'left';
  const range = document.createRange();
  let begin = 0;
  let top = null;
  const flush = (end) => {
    range.setStart(node, begin);
    range.setEnd(node, end);
    const box = range.getBoundingClientRect();
    const line = node.data.slice(begin, end).trimEnd();
    if (box.width) context.fillText(line, box.left, box.top + box.height / 2);
  };
  // Long names are cut by the browser; a thousand letters are more than a line has.
  const length = Math.min(node.data.length, 1000);
  for (let index = 0; index < length; index += 1) {
    range.setStart(node, index);
    range.setEnd(node, index + 1);
    const box = range.getClientRects()[0];
    if (!box || !box.width) continue;
    if (top !== null && box.top > top + box.height / 2) {
      flush(index);
      begin = index;
    }
    top = box.top;
  }
  flush(length);
}
