/** An event of a job. Text comes as `job.output.delta` without a `seq`; all other events are numbered from 1. */
export interface JobEvent {
  type: string;
  seq?: number;
  at: string;
  job_id: string;
  attempt?: number | null;
  data: Record<string, unknown>;
}

/** One event of a stream of server-sent events. */
export interface Frame {
  event: string;
  data: string;
}

/** Thrown when events or text before this event are missing: reconnect from the cursor's position. */
export class Gap extends Error {}

const DELTA = "job.output.delta";
const TERMINAL = new Set(["job.completed", "job.blocked", "job.failed", "job.cancelled", "job.expired"]);

/** Yield the frames of a stream, as the HTML standard splits it. */
export async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "", event = "", data: string[] = [], afterCr = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      let text = decoder.decode(value, { stream: true });
      if (afterCr && text.startsWith("\n")) text = text.slice(1);
      if (text === "") continue;
      afterCr = text.endsWith("\r");
      const lines = (rest + text).split(/\r\n|\r|\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const content = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "event") event = content;
        else if (name === "data") data.push(content);
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/**
 * The position of a reader in a job's events: each comes once and in order, over any number of connections.
 * `after` and `offset` are where the next connection continues.
 */
export class Cursor {
  over = false;
  private readonly ends = new Map<number | null, number>();
  private trusted: boolean;

  constructor(public after = 0, public offset = 0) {
    this.trusted = offset > 0; // the caller says where the first text begins
  }

  /** Return the new event in the frame, or null if it has none. Throws Gap if something before it is missing. */
  take(frame: Frame): JobEvent | null {
    const event = read(frame);
    if (event === null) return null;
    if (event.type === DELTA) return this.text(event);
    if (event.seq === undefined) return event;
    if (event.seq <= this.after) return null;
    if (event.seq > this.after + 1) throw new Gap();
    this.after = event.seq;
    this.over = TERMINAL.has(event.type);
    if (event.type === "job.attempt.started" || event.type === "job.attempt.finished") this.offset = 0;
    return event;
  }

  private text(event: JobEvent): JobEvent | null {
    const attempt = event.attempt ?? null;
    const text = [...String(event.data.delta ?? "")]; // offsets count characters, not UTF-16 units
    const start = Number(event.data.offset ?? 0);
    const known = this.ends.get(attempt) ?? (this.trusted ? start : 0);
    if (start > known) {
      this.offset = known;
      throw new Gap();
    }
    this.trusted = false;
    const fresh = text.slice(known - start);
    if (fresh.length === 0) return null;
    this.offset = known + fresh.length;
    this.ends.set(attempt, this.offset);
    return { ...event, data: { ...event.data, offset: known, delta: fresh.join("") } };
  }
}

function read(frame: Frame): JobEvent | null {
  try {
    const body: unknown = JSON.parse(frame.data);
    return typeof body === "object" && body !== null ? ({ type: frame.event, ...body } as JobEvent) : null;
  } catch {
    return null;
  }
}
