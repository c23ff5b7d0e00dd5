// Variable paths as labels of limited width.

// Texts of fewer letters fit into any label, those of more into none; between them, measure.
const SURE = {fits: 24, long: 80};

/** A path as dim beginning and plain end: the last two names, which tell layers apart. */
export function parted(path) {
  const cut = path.lastIndexOf('/', path.lastIndexOf('/') - 1) + 1;
  return [path.slice(0, cut), path.slice(cut)];
}

/** A path of any length for a sentence or a title: its beginning and end. */
export function brief(path, most = 160) {
  if (path.length <= most) return path;
  return `${path.slice(0, most / 2)}…${path.slice(-most / 2)}`;
}

/**
 * Paths as dim beginning and plain end. The end tells layers apart, so where one is too long its
 * first names give way to an ellipsis, and they do so for all paths that begin with them.
 * @param {string[]} paths
 * @param {function(string): boolean} measure Whether a text is short enough.
 * @returns {Array<[string, string]>}
 */
export function shorten(paths, measure) {
  const fits = (text) =>
    text.length < SURE.fits || (text.length < SURE.long && measure(text));
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
    return parted(shown);
  });
}
