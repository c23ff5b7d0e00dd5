// Variable paths as labels of limited width.

/**
 * Paths as dim beginning and plain end. The end tells layers apart, so where one is too long its
 * first names give way to an ellipsis, and they do so for all paths that begin with them.
 * @param {string[]} paths
 * @param {function(string): boolean} fits Whether a text is short enough.
 * @returns {Array<[string, string]>}
 */
export function shorten(paths, fits) {
  const dropped = new Set();
  for (const path of paths) {
    let slash = 0;
    while (!fits(slash ? `…${path.slice(slash)}` : path)) {
      const next = path.indexOf('/', slash + 1);
      if (next < 0) break;
      slash = next;
    }
    if (slash) dropped.add(path.slice(0, slash + 1));
  }
  return paths.map((path) => {
    let shown = path;
    for (let slash = path.indexOf('/'); slash > 0; slash = path.indexOf('/', slash + 1)) {
      if (dropped.has(path.slice(0, slash + 1))) shown = `…${path.slice(slash)}`;
    }
    const cut = shown.lastIndexOf('/', shown.lastIndexOf('/') - 1) + 1;
    return [shown.slice(0, cut), shown.slice(cut)];
  });
}
