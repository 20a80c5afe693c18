// Every call of the service, and every way in which a call can fail, as one kind of error.

/** With the HTTP status, 0 where there is no answer, and the seconds to wait. */
export class Failure extends Error {
  constructor(message, status = 0, wait = 0) {
    super(message);
    Object.assign(this, { status, wait });
  }
}

export const failureOf = (status, told, wait) => new Failure(told?.error?.message ?? `The service answered ${status}.`, status, wait);

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("The service does not answer.");
  }
  if (answer.ok) return answer;
  throw failureOf(answer.status, await answer.json().catch(() => null), Number(answer.headers.get("Retry-After")));
}

const post = (path, body, signal, accept = "application/json") => call(path, {
  method: "POST", body: JSON.stringify(body), signal, headers: { "Content-Type": "application/json", Accept: accept },
});

export const getJson = async (path, query = {}) => (await call(`${path}?${new URLSearchParams(query)}`)).json();
export const postJson = async (path, body, signal) => (await post(path, body, signal)).json();

/** Search, and yield {event, data} as they come. */
export async function* search(body, signal) {
  const reader = (await post("search", body, signal, "text/event-stream")).body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (waiting + value.replaceAll("\r", "")).split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const event = /^event: ?(.*)$/m.exec(block)?.[1];
      const data = /^data: ?(.*)$/m.exec(block)?.[1];
      if (event && data) yield { event, data: JSON.parse(data) };
    }
  }
}

/** Send a picture and return {upload, picture}. */
export async function upload(file) {
  const picture = await createImageBitmap(file).catch(() => {
    throw new Failure("This file is not a picture that the browser can read. Try JPEG, PNG or WebP.");
  });
  const answer = await call("uploads", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
  return { ...(await answer.json()), picture };
}
