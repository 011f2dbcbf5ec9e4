// Requests with an API key: entered when the server requires one, kept until the tab closes, and sent to this server only.
const NAME = "convoy-key";

const withKey = (options, key) => key ? { ...options, headers: { ...options.headers, authorization: `Bearer ${key}` } } : options;

export async function ask(path, options = {}) {
  const response = await fetch(path, withKey(options, sessionStorage.getItem(NAME)));
  if (response.status !== 401) return response;
  const key = window.prompt("This server requires an API key.");
  if (!key) return response;
  sessionStorage.setItem(NAME, key.trim());
  return fetch(path, withKey(options, key.trim()));
}
