// Regular expressions whose search takes time proportional to the text's length, whatever a person
// types. The browser's own try one way after another, which for /(a+)+$/ takes hours.
//
// All ways are followed at once, as in K. Thompson, "Regular expression search algorithm",
// Communications of the ACM 11 (1968). Single characters and classes are judged by the browser.

// More states than these take too long; counts such as {1000} multiply.
const MOST_STATES = 500;

const UNKNOWN = {
  reference: 'references such as \\1 are not supported here',
  group: 'look-ahead, look-behind and flags within groups are not supported here',
  long: 'it is too long, or its counts are too large',
};

// An atom: a class, an escape or a character.
const CLASS = String.raw`\[(?:\\[^]|[^\]\\])*\]`;
const HEX = String.raw`u[\da-fA-F]{4}|x[\da-fA-F]{2}|c[A-Za-z]`;
const PAIR = String.raw`u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}`;
const ATOM = new RegExp(String.raw`${CLASS}|\\(?:${HEX}|[^])|[^]`, 'y');
const UNICODE_ATOM = new RegExp(
  String.raw`${CLASS}|\\(?:[pPu]\{[^}]*\}|${PAIR}|${HEX}|[^])|[^]`, 'yu');

const WORD = /\w/;
const LINE_END = /[\n\r\u2028\u2029]/;

/**
 * Compiles an expression to a function of a text: whether it occurs there.
 * @param {string} source
 * @param {string} flags Of "i", "m", "s" and "u".
 * @returns {function(string): boolean}
 * @throws {SyntaxError} The browser would not take it either, or it is not supported here.
 */
export function compile(source, flags) {
  void new RegExp(source, flags);
  if (flags.includes('v')) throw new SyntaxError('the flag v is not supported here');
  const states = [];
  const add = (state) => {
    if (states.length >= MOST_STATES) throw new SyntaxError(UNKNOWN.long);
    return states.push(state) - 1;
  };
  // From the end to the beginning, so that each state knows where it goes.
  const start = build(new Parser(source, flags).parse(), add({kind: 'found'}), add, states);
  return (text) => search(states, start, flags, text);
}

// The state before a node whose end goes to `next`.
function build(node, next, add, states) {
  const {kind, parts, least, most, part} = node;
  if (kind === 'sequence') return parts.reduceRight((to, one) => build(one, to, add, states), next);
  if (kind === 'choice') {
    return add({kind: 'split', goes: parts.map((one) => build(one, next, add, states))});
  }
  if (kind !== 'repeat') return add({...node, next});
  let to = next;
  if (most === Infinity) {
    const loop = add({kind: 'split', goes: [next]});
    states[loop].goes.push(build(part, loop, add, states));
    to = loop;
  } else {
    for (let count = least; count < most; count += 1) {
      to = add({kind: 'split', goes: [next, build(part, to, add, states)]});
    }
  }
  for (let count = 0; count < least; count += 1) to = build(part, to, add, states);
  return to;
}

class Parser {
  constructor(source, flags) {
    Object.assign(this, {source, flags, at: 0});
    this.tests = new Map();
  }

  parse() {
    const parts = [this.#sequence()];
    while (this.#take(/\|/y)) parts.push(this.#sequence());
    return parts.length > 1 ? {kind: 'choice', parts} : parts[0];
  }

  #take(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.source);
    if (found) this.at += found[0].length;
    return found;
  }

  #sequence() {
    const parts = [];
    while (this.at < this.source.length && !/[|)]/.test(this.source[this.at])) {
      const part = this.#one();
      const repeat = this.#take(/(?:([*+?])|\{(\d+)(,?)(\d*)\})\??/y);
      if (!repeat) {
        parts.push(part);
        continue;
      }
      const [, sign, first, comma, last] = repeat;
      const [least, most] = sign ? {'*': [0, Infinity], '+': [1, Infinity], '?': [0, 1]}[sign]
        : [Number(first), last ? Number(last) : comma ? Infinity : Number(first)];
      if (Math.max(least, most === Infinity ? 0 : most) > MOST_STATES) {
        throw new SyntaxError(UNKNOWN.long);
      }
      parts.push({kind: 'repeat', part, least, most});
    }
    return {kind: 'sequence', parts};
  }

  #one() {
    if (this.#take(/\((?:\?:|\?<[^=!>][^>]*>)?(?!\?)/y)) {
      const part = this.parse();
      this.at += 1; // The browser has seen that the group ends.
      return part;
    }
    if (this.source[this.at] === '(') throw new SyntaxError(UNKNOWN.group);
    const assertion = this.#take(/[\^$]|\\[bB]/y);
    if (assertion) return {kind: 'assertion', sign: assertion[0]};
    if (this.#take(/\\(?:[1-9]|k<)/y)) throw new SyntaxError(UNKNOWN.reference);
    const [atom] = this.#take(this.flags.includes('u') ? UNICODE_ATOM : ATOM);
    return {kind: 'character', matches: this.#test(atom)};
  }

  // Whether a character is the one or of the class, as the browser has it; asked once each.
  #test(atom) {
    if (!this.tests.has(atom)) {
      const expression = new RegExp(`^(?:${atom})$`, this.flags);
      const known = new Map();
      this.tests.set(atom, (character) => {
        if (!known.has(character)) known.set(character, expression.test(character));
        return known.get(character);
      });
    }
    return this.tests.get(atom);
  }
}

function search(states, start, flags, text) {
  // With the flag "u" a character may take two places of the text.
  const characters = flags.includes('u') ? Array.from(text) : text.split('');
  const lines = flags.includes('m');
  const holds = (sign, at) => {
    const [before, after] = [characters[at - 1], characters[at]];
    if (sign === '^') return at === 0 || (lines && LINE_END.test(before));
    if (sign === '$') return at === characters.length || (lines && LINE_END.test(after));
    const edge = WORD.test(before ?? ' ') !== WORD.test(after ?? ' ');
    return edge === (sign === '\\b');
  };
  let now = [];
  for (let at = 0; at <= characters.length; at += 1) {
    // An occurrence may begin at each character.
    const reached = new Set();
    const open = [...now, start];
    const next = [];
    while (open.length) {
      const place = open.pop();
      if (reached.has(place)) continue;
      reached.add(place);
      const {kind, goes, next: to, sign, matches} = states[place];
      if (kind === 'found') return true;
      if (kind === 'split') open.push(...goes);
      else if (kind === 'assertion') {
        if (holds(sign, at)) open.push(to);
      } else if (at < characters.length && matches(characters[at])) next.push(to);
    }
    now = next;
  }
  return false;
}
