// The page's state in the address of the window around it, so that a link shows the same.
//
// TensorBoard gives a plugin the query parameters `p.<plugin>.<name>`.

const PREFIX = 'p.disttrain.';

// The window whose address a person sees: TensorBoard's, or our own where it is not to be reached.
function top() {
  try {
    void window.parent.location.href;
    return window.parent;
  } catch {
    return window;
  }
}

/** The texts in the address, by name. */
export function readAddress() {
  const found = {};
  for (const [name, value] of new URLSearchParams(top().location.search)) {
    if (name.startsWith(PREFIX)) found[name.slice(PREFIX.length)] = value;
  }
  return found;
}

/** A link to the page with these texts in its address. */
export function link(parameters) {
  const url = new URL(top().location.href);
  for (const name of [...url.searchParams.keys()]) {
    if (name.startsWith(PREFIX)) url.searchParams.delete(name);
  }
  for (const [name, value] of Object.entries(parameters)) {
    url.searchParams.set(PREFIX + name, value);
  }
  return url.href;
}

/** Puts texts into the address, without a new entry in the history. */
export function writeAddress(parameters) {
  const {history} = top();
  try {
    history.replaceState(history.state, '', link(parameters));
  } catch {
    // A browser that forbids it, or counts too many: the page goes on without.
  }
}
