// The tiny harness of the Node clients' scripts: features in, one JSON line a feature out.

export const URL = process.env.VIGIL_URL + "/v1";
export const KEY = process.env.VIGIL_API_KEY;
export const MODEL = "gpt-5.6-sol";
const features = [];

const missing = (process.env.VIGIL_MISSING ?? "").split(",");

export function feature(name, run, { needs = "" } = {}) {
  features.push({ name, run, needs });
}

export function report(feature, result, detail = "") {
  console.log(JSON.stringify({ feature, result, detail }));
}

export async function run() {
  for (const { name, run, needs } of features) {
    if (needs && missing.includes(needs)) {
      report(name, `needs ${needs}`);
      continue;
    }
    try {
      await run();
      report(name, "pass");
    } catch (error) {
      console.error(error);
      report(name, "fail", String(error).slice(0, 300));
    }
  }
}
