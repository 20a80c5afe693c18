// Every call of the service, and every way in which a call can fail, as one kind of error.

/** kind: offline, busy, refused or broken. */
export class Failure extends Error {
  constructor(kind, message, status = 0, wait = 0) {
    super(message);
    Object.assign(this, { kind, status, wait });
  }
}

export const failureOf = (status, told, wait) => {
  const inner = told?.error ?? told?.detail ?? told;
  const message = typeof inner === "string" ? inner : inner?.message ?? inner?.[0]?.msg;
  const kind = status === 429 || status === 503 ? "busy" : status >= 500 ? "broken" : "refused";
  return new Failure(kind, message ?? `The service answered ${status}.`, status, wait);
};

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("offline", "The service does not answer.");
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
      const data = [...block.matchAll(/^data: ?(.*)$/gm)].map(([, line]) => line).join("\n");
      if (event && data) yield { event, data: JSON.parse(data) };
    }
  }
}

const MOST_BYTES = 3e6;
const LONGEST_SIDE = 1600;

/** Send a picture and return {upload, picture}; a large photograph is made smaller first. */
export async function upload(file) {
  const picture = await createImageBitmap(file).catch(() => {
    throw new Failure("refused", "This file is not a picture that the browser can read. Try JPEG, PNG or WebP.");
  });
  const scale = LONGEST_SIDE / Math.max(picture.width, picture.height);
  let bytes = file;
  if (file.size > MOST_BYTES && scale < 1) {
    const canvas = new OffscreenCanvas(picture.width * scale, picture.height * scale);
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    bytes = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  }
  const answer = await call("uploads", { method: "POST", body: bytes, headers: { "Content-Type": "application/octet-stream" } });
  return { ...(await answer.json()), picture };
}
