// How the page asks the server, and says what it got.
import { ask as request } from "./key.js";

export const find = id => document.getElementById(id);

export function element(parent, tag, text = "", kind = "") {
  const one = parent.appendChild(document.createElement(tag));
  one.textContent = text;
  if (kind) one.className = kind;
  return one;
}

// The JSON of an answer; an error has a sentence for people and the answer's status, if there was an answer.
export async function ask(path, options) {
  let response;
  try {
    response = await request(path, options);
  } catch (error) {
    throw new Error(`The server does not answer: ${error.message}. Is it still running?`);
  }
  const body = await response.json().catch(() => ({ error: `no JSON came for ${path} (status ${response.status})` }));
  if (!response.ok) throw Object.assign(new Error(body.error), { status: response.status });
  return body;
}
