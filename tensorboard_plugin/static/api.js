// Asks the plugin's routes and decodes what they answer.

/** An answer that is not what was asked for, with a message for a person. */
export class AnswerError extends Error {}

async function ask(route, parameters, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined) query.append(name, one);
    }
  }
  let response;
  try {
    response = await fetch(new URL(`${route}?${query}`, document.baseURI), {signal});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new AnswerError('TensorBoard does not answer. Look whether it is still running.');
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = `TensorBoard answered ${response.status} to “${route}”; its log says why.`;
  try {
    message = JSON.parse(text).error || message;
  } catch {
    // Not ours: the message above stands.
  }
  throw new AnswerError(message);
}

/** JSON of a route. */
export async function askJson(route, parameters = {}, signal = undefined) {
  return (await ask(route, parameters, signal)).json();
}

/**
 * Arrays of a route: the header's fields, and each array as `{shape, values: Float32Array}`.
 * The layout is described in `answers.py`.
 */
export async function askArrays(route, parameters, signal) {
  const response = await ask(route, {...parameters, format: 'binary'}, signal);
  const buffer = await response.arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  for (const {name, shape} of header.arrays) {
    const size = shape.reduce((product, side) => product * side, 1);
    header[name] = {shape, values: new Float32Array(buffer, offset, size)};
    offset += 4 * size;
  }
  return header;
}

/** A file of a route, and the name that the server gives it. */
export async function askFile(route, parameters) {
  const response = await ask(route, parameters);
  const named = /filename="([^"]+)"/.exec(response.headers.get('Content-Disposition') || '');
  return {blob: await response.blob(), name: named ? named[1] : 'disttrain'};
}
