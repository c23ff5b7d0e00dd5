// What the page knows of the TensorBoard around it: dark mode, reloads, whether it can be seen.

/** Follows TensorBoard's dark mode; calls `changed` when it switches. */
export function followTheme(changed) {
  let host;
  try {
    host = window.parent.document.body;
  } catch {
    return; // Another origin embeds the page: it stays light.
  }
  const apply = () => {
    const dark = host.classList.contains('dark-mode');
    if (document.documentElement.classList.contains('dark') === dark) return;
    document.documentElement.classList.toggle('dark', dark);
    changed();
  };
  new MutationObserver(apply).observe(host, {attributes: true, attributeFilter: ['class']});
  apply();
}

/** Calls `reloaded` whenever TensorBoard has looked for new data. */
export function followReloads(reloaded) {
  if (window.parent === window) return;
  const channel = new MessageChannel();
  channel.port1.onmessage = (event) => {
    const {type, id, isReply} = JSON.parse(event.data);
    if (isReply) return;
    // TensorBoard waits for an answer to each of its messages.
    const reply = {type, id, payload: null, error: null, isReply: true};
    channel.port1.postMessage(JSON.stringify(reply));
    if (type === 'experimental.DataReloaded') reloaded();
  };
  window.parent.postMessage('experimental.bootstrap', '*', [channel.port2]);
}

/** Calls `seen` each time the page's size changes to one that can be seen. */
export function followSize(node, seen) {
  new ResizeObserver(() => {
    if (node.clientWidth > 0 && node.clientHeight > 0) seen();
  }).observe(node);
}
