// The tiny harness of the Node clients' scripts: features in, one JSON line a feature out.

export const URL = process.env.VIGIL_URL + "/v1";
export const KEY = process.env.VIGIL_API_KEY;
export const MODEL = "gpt-5.6-sol";
const features = [];

export function feature(name, run, { chat = false } = {}) {
  features.push({ name, run, chat });
}

export function report(feature, result, detail = "") {
  console.log(JSON.stringify({ feature, result, detail }));
}

export async function run() {
  for (const { name, run, chat } of features) {
    if (chat && process.env.VIGIL_HAS_CHAT !== "1") {
      report(name, "needs chat");
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
