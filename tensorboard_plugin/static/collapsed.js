// Which groups a person has opened or closed, as the list of texts that the state keeps.
//
// A text is a sign, "+" for open and "-" for collapsed, and a group's prefix; a sign alone stands
// for all groups that are not named themselves. What is not named is as it is by itself.

/**
 * @param {string[]} texts
 * @returns {function(string): boolean|undefined} Whether the group of a prefix has been opened;
 *     undefined where nobody has chosen.
 */
export function choices(texts) {
  const found = new Map();
  for (const text of texts) {
    if (text[0] === '+' || text[0] === '-') found.set(text.slice(1), text[0] === '+');
  }
  return (prefix) => found.get(prefix) ?? found.get('');
}

/** The texts once a group has been opened or collapsed. */
export function choose(texts, prefix, open) {
  return [...texts.filter((text) => text.slice(1) !== prefix), `${open ? '+' : '-'}${prefix}`];
}

/** The texts once all groups have been opened or collapsed. */
export function chooseAll(open) {
  return [open ? '+' : '-'];
}
