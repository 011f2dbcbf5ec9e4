// Requests of the page to its server, and helpers for the document.
import { ask as request } from "./key.js";

export const find = id => document.getElementById(id);

export function element(parent, tag, text = "", kind = "") {
  const created = parent.appendChild(document.createElement(tag));
  created.textContent = text;
  if (kind) created.className = kind;
  return created;
}

// The JSON of a response. An error has a message for the user and, if the server responded, the HTTP status.
export async function ask(path, options) {
  let response;
  try {
    response = await request(path, options);
  } catch (error) {
    throw new Error(`The server does not answer: ${error.message}. Is it still running?`);
  }
  const body = await response.json().catch(() => ({ error: `the response of ${path} is not JSON (status ${response.status})` }));
  if (!response.ok) throw Object.assign(new Error(body.error), { status: response.status });
  return body;
}
