import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export async function campanile() {
  const server = spawn("campanile", ["serve", "--pipe", "-q"], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
  const event = async (...kinds) => {
    for (;;) { const e = JSON.parse((await lines.next()).value); if (kinds.includes(e.event)) return e; }
  };
  const address = async () => { const [host, port] = (await event("listening")).addr.split(":"); return { host, port: +port }; };
  const fault = async (spec) => { server.stdin.write(spec + "\n"); const e = await event("fault", "wrong_fault"); if (e.error) throw new Error(e.error); };
  return { daytime: await address(), echo: await address(), fault, event, stop: () => server.stdin.end() };
}
