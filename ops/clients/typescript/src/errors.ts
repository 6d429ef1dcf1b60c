/** An answer of the API that is an error, in the terms of its problem document. */
export class VigilError extends Error {
  readonly status: number;
  /** The problem's `code`, such as `job_not_found` or `rate_limited`. */
  readonly code: string;
  readonly requestId: string | null;
  /** Seconds of Retry-After, or null. */
  readonly retryAfter: number | null;
  readonly problem: Record<string, unknown>;

  constructor(response: Response, problem: Record<string, unknown>) {
    super(String(problem.detail ?? problem.title ?? `HTTP ${response.status}`));
    this.name = "VigilError";
    this.status = response.status;
    this.code = String(problem.code ?? "http_error");
    this.requestId = response.headers.get("x-request-id");
    this.retryAfter = retryAfter(response);
    this.problem = problem;
  }
}

/** The job has not settled within the time that the caller gave. */
export class StillRunning extends Error {
  constructor(readonly jobId: string) {
    super(`${jobId} has not settled yet; wait again.`);
    this.name = "StillRunning";
  }
}

/** Return the error that a response is. */
export async function errorOf(response: Response): Promise<VigilError> {
  const body: unknown = await response.json().catch(() => null);
  return new VigilError(response, typeof body === "object" && body !== null ? { ...body } : {});
}

/** Return the seconds of Retry-After, or null if there is none in seconds. */
export function retryAfter(response: Response): number | null {
  const value = response.headers.get("retry-after") ?? "";
  return /^\d{1,9}$/.test(value) ? Number(value) : null;
}
