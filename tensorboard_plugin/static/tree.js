// Layers grouped by block: from variables' paths to a tree, and from the tree to the rows shown.
//
// A block is a common beginning of paths: `transformer/block_0/`, and `block_0_` where the layers
// of a block are told apart by what follows its number.

/** With more rows than this, groups begin collapsed so far that the rest fits on the screen. */
export const MOST_OPEN = 60;

// So many variables of one layer (kernel, bias, ...) make no group in a small model.
const OWN = 4;

// Names of deeper paths stay together, so that no path makes a tree of any depth.
const MOST_NAMES = 12;

/**
 * @typedef {{prefix: string, items: Array<Group|{row: number}>, rows: number[], owned: boolean}}
 *     Group `rows` are those of the answer that it holds at any depth.
 * @typedef {{row: number, group: ?Group, open: boolean, level: number, place: number,
 *     size: number, prefix: string}} Row One that is shown: a layer's, or with `group` a group's;
 *     `place` and `size` are among its siblings.
 */

// "model/block_0_norm/gamma" is "model/", "block_0_", "norm/".
function names(path) {
  const layer = path.slice(0, path.lastIndexOf('/') + 1);
  const found = layer.match(/[^/]*?_\d+_(?=[^/_])|[^/]*\//g) || [];
  return found.length > MOST_NAMES
    ? [...found.slice(0, MOST_NAMES - 1), found.slice(MOST_NAMES - 1).join('')] : found;
}

function group(prefix) {
  return {prefix, items: [], inner: new Map(), rows: [], owned: true};
}

/**
 * Groups layers, in the order of the rows.
 * @param {string[]} paths Of all the answer's variables.
 * @param {number[]} rows Those to group.
 * @returns {Group} The root, whose items are on the first level.
 */
export function buildTree(paths, rows) {
  const root = group('');
  for (const row of rows) {
    let at = root;
    at.rows.push(row);
    for (const name of names(paths[row])) {
      let next = at.inner.get(name);
      if (!next) {
        next = group(at.prefix + name);
        at.inner.set(name, next);
        at.items.push(next);
        at.owned = false;
      }
      at = next;
      at.rows.push(row);
    }
    at.items.push({row});
  }
  const tidied = tidy(root, rows.length > MOST_OPEN)[0];
  return tidied.items ? tidied : {...root, items: [tidied]};
}

// What stands for a group in its parent: nothing that holds but one thing is a group of its own.
function tidy(node, layers) {
  if (!node.items) return [node];
  const first = ({items, rows, row}) => (items ? rows[0] : row);
  // In model order again, where a layer's variables are not all together.
  node.items = node.items.flatMap((item) => tidy(item, layers)).sort((a, b) => first(a) - first(b));
  delete node.inner;
  if (node.items.length === 1) return node.items;
  const few = node.owned && node.prefix && !layers && node.items.length <= OWN;
  return few ? node.items : [node];
}

/** Whether there is any group below a tree's root. */
export function hasGroups(tree) {
  return tree.items.some(({items}) => items);
}

/**
 * The groups that are open when nobody has chosen: all of them in a small model, else whole levels
 * from the top as long as their rows fit.
 * @param {Group} tree
 * @param {number} fitting How many rows fit on the screen.
 * @returns {Set<Group>}
 */
export function opened(tree, fitting) {
  const levels = [];
  let total = tree.items.length;
  for (let level = tree.items.filter(({items}) => items); level.length;) {
    levels.push(level);
    total += level.reduce((sum, {items}) => sum + items.length, 0);
    level = level.flatMap(({items}) => items.filter((item) => item.items));
  }
  if (total <= MOST_OPEN) return new Set(levels.flat());
  const found = new Set();
  let shown = tree.items.length;
  for (const level of levels) {
    shown += level.reduce((sum, {items}) => sum + items.length, 0);
    if (shown > fitting) break;
    for (const one of level) found.add(one);
  }
  return found;
}

/**
 * The rows of a tree that are seen.
 * @param {Group} tree
 * @param {function(Group): boolean} isOpen
 * @returns {Row[]}
 */
export function treeRows(tree, isOpen) {
  const found = [];
  const walk = ({items, prefix}, level) => items.forEach((item, index) => {
    const open = Boolean(item.items) && isOpen(item);
    found.push({
      row: item.items ? -1 : item.row, group: item.items ? item : null, open, level, prefix,
      place: index + 1, size: items.length,
    });
    if (open) walk(item, level + 1);
  });
  walk(tree, 1);
  return found;
}

/** Rows without groups. */
export function flatRows(rows) {
  return rows.map((row, index) => ({
    row, group: null, open: false, level: 1, prefix: '', place: index + 1, size: rows.length,
  }));
}

/** A group's name as a person says it, without what joins it to its members. */
export function groupName({prefix}) {
  return prefix.replace(/[/_]+$/, '') || prefix;
}
