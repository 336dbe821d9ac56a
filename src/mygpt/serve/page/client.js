// Talks to the server this page came from, and to nobody else.

export class ServerError extends Error {
  constructor(message, { status = 0, code = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let key = null; // kept in this tab's memory only

export function useKey(given) {
  key = given;
}

export async function getJson(path) {
  return (await request(path)).json();
}

export async function postJson(path, body) {
  return (await request(path, body)).json();
}

// The chunks of one streamed answer. Aborting `signal` closes the connection, which stops the model.
export async function* streamAnswer(body, signal) {
  const response = await request("/v1/chat/completions", { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { value, done } = await reader.read().catch(notReached);
    if (done) throw new ServerError("The answer broke off. Is the server still running? Try again.");
    buffered += value;
    const events = buffered.split("\n\n");
    buffered = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.message, { code: chunk.error.code });
      yield chunk;
    }
  }
}

async function request(path, body, signal) {
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { ...post, headers, signal, redirect: "error", cache: "no-store" }).catch(notReached);
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({ error: null }));
    throw new ServerError(error?.message ?? `The server answered with status ${response.status}.`, { status: response.status, code: error?.code });
  }
  return response;
}

function notReached(error) {
  if (error.name === "AbortError") throw error;
  throw new ServerError("The server does not answer. See whether it is still running in its terminal, then try again.");
}
