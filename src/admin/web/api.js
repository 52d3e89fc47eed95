// Requests to the API of the server that the page came from.

/** An error response of the API, with the place of a mistake in the query. */
export class ApiError extends Error {
  constructor(status, body) {
    const error = body?.error;
    const message = typeof error === 'string' ? error : error?.message;
    super(message ?? `the server answered with status ${status}`);
    this.status = status;
    this.at = error?.at;
    this.length = error?.length;
    this.key = error?.key;
  }
}

/** Parameters that are set, as a query string. */
export function queryString(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value != null && value !== '');
  const text = new URLSearchParams(set).toString();
  return text ? `?${text}` : '';
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: 'same-origin', ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('the server does not answer');
  }
  const body = await response.json().catch(() => null);
  if (response.status === 401) {
    window.dispatchEvent(new CustomEvent('windrow:login'));
  }
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

/** GET of `/api/v1/…`. */
export const get = (path, parameters = {}, signal = undefined) =>
  request(`/api/v1/${path}${queryString(parameters)}`, { signal });

/** POST to `/api/v1/…`. The header tells the server that no foreign page sent it. */
export const post = (path, body = {}) =>
  request(`/api/v1/${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-windrow': '1' },
    body: JSON.stringify(body),
  });

/**
 * The live tail: `onTraces(traces, lost)` for each event, `onState(text)` when the connection
 * changes. Returns a function that ends it.
 */
export function tail(query, onTraces, onState = () => {}) {
  const source = new EventSource(`/api/v1/tail${queryString({ q: query })}`);
  source.addEventListener('traces', (event) => {
    const { traces, lost } = JSON.parse(event.data);
    onTraces(traces, lost);
  });
  source.onopen = () => onState('');
  source.onerror = () => onState('The live connection was lost; it is being made again.');
  return () => source.close();
}
