// A server for a test in Node: `const server = await campanile({ idle: "1s" })`, and at its end
// `await server.stop()`. Copy this file; it needs the program only.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const HOW_TO_GET_IT = `cannot start the program \`campanile\`: it is not on PATH.
Run \`cargo install --path .\` in a checkout of campanile, or set CAMPANILE_PROGRAM to its path.`;

/**
 * Starts a server. Each option is a flag of `campanile serve`: `{ manualTime: true, faults: [], args: [] }`.
 * `{ proxies: { db: "127.0.0.1:6379" } }` puts a proxy in front of a server of your own.
 */
export async function campanile({ proxies = {}, faults = [], args = [], ...options } = {}) {
  const words = ["serve", "--pipe", "--quiet"];
  for (const [name, value] of Object.entries(options)) {
    const flag = "--" + name.replace(/[A-Z_]/g, (c) => "-" + c.toLowerCase().replace("_", ""));
    if (value === true) words.push(flag);
    else if (value !== false) words.push(`${flag}=${value}`);
  }
  words.push(...Object.entries(proxies).map(([name, upstream]) => `--proxy=${name}=0>${upstream}`));
  words.push(...faults.map((fault) => `--fault=${fault}`), ...args);
  const server = spawn(process.env.CAMPANILE_PROGRAM || "campanile", words, { stdio: ["pipe", "pipe", "inherit"] });
  // A test that fails before `stop` does not keep Node from ending, and the server ends with Node.
  for (const handle of [server, server.stdin, server.stdout]) handle.unref();
  const log = [], unread = [], waiting = new Set();
  let ended = null;
  const look = () => { for (const wake of waiting) wake(); };
  server.on("error", (error) => { ended = error.code === "ENOENT" ? HOW_TO_GET_IT : error.message; look(); });
  server.stdin.on("error", () => {});
  const exited = new Promise((done) => server.on("close", (code, signal) => {
    ended ??= `the server has ended with ${signal ?? `exit code ${code}`}`;
    look();
    done(code);
  }));
  // Every event is kept until a call takes it.
  createInterface({ input: server.stdout }).on("line", (line) => {
    const event = JSON.parse(line);
    log.push(event);
    unread.push(event);
    look();
  });
  const table = () => log.filter((e) => !["open", "listed"].includes(e.event)).map((e) => "  " + JSON.stringify(e)).join("\n");

  const next = (wanted, matches, within) => new Promise((done, fail) => {
    const timer = setTimeout(() => finish(fail, new Error(`no ${wanted} within ${within} ms; what happened:\n${table()}`)), within);
    const finish = (settle, value) => { clearTimeout(timer); waiting.delete(wake); settle(value); };
    const wake = () => {
      const at = unread.findIndex(matches);
      if (at >= 0) finish(done, unread.splice(at, 1)[0]);
      else if (ended) finish(fail, new Error(`waited for ${wanted}, but ${ended}\n${table()}`));
    };
    waiting.add(wake);
    wake();
  });
  /** Returns the next event of this kind with these values. Events that do not match stay for later calls. */
  const event = (kind, where = {}, { within = 5000 } = {}) => {
    const fields = Object.entries(where);
    const wanted = kind + (fields.length ? ` with ${JSON.stringify(where)}` : "");
    return next(wanted, (e) => e.event === kind && fields.every(([name, value]) => e[name] === value), within);
  };

  let last = Promise.resolve();
  /** Sends one command at a time, so that each answer is that of its command. */
  const ask = (command, ...kinds) => {
    const answers = async () => {
      server.stdin.write(command + "\n");
      const answer = async (kind) => {
        const matches = (e) => e.event === kind || e.event === "wrong_fault";
        const e = await next(`answer to \`${command}\``, matches, 10000);
        if (e.event === "wrong_fault") throw new Error(`\`${e.fault}\`: ${e.error}`);
        return e;
      };
      const e = await answer(kinds[0]);
      if (e.event !== "listed") return e;
      const rows = [];
      while (rows.length < e.count) rows.push(await answer("open"));
      return rows;
    };
    const asked = last.then(answers);
    last = asked.catch(() => {});
    return asked;
  };
  const isEnded = (id) => log.some((e) => e.event === "fault_ended" && e.id === id);

  const address = async (service) => {
    const { addr } = await event("listening", { service }, { within: 10000 });
    const at = addr.lastIndexOf(":");
    return { host: addr.slice(0, at), port: Number(addr.slice(at + 1)) };
  };
  const [daytime, echo, addresses] = [await address("daytime"), await address("echo"), {}];
  for (const name of Object.keys(proxies)) addresses[name] = await address(name);
  return {
    daytime,
    echo,
    /** The address of each proxy by its name. Faults name it `db`, or `db upstream` on the server's side. */
    proxies: addresses,
    /** Adds a fault. It ends on `remove()`, on `clear()`, or with the server. */
    async fault(spec) {
      const { id, fault } = await ask(spec, "fault");
      // It may have ended by its `for T`.
      return { id, text: fault, remove: async () => { if (!isEnded(id)) await ask(`remove ${id}`, "fault_ended"); } };
    },
    clear: async () => (await ask("clear", "cleared")).count,
    /** Lets seconds pass, with `manualTime: true`. */
    advance: async (seconds) => { await ask(`advance ${Math.round(seconds * 1e6)}us`, "advanced"); },
    /** The ledgers of the open connections. */
    connections: () => ask("connections", "listed"),
    event,
    events: () => [...log],
    async stop() {
      server.stdin.end();
      const timer = setTimeout(() => server.kill("SIGKILL"), 10000);
      const code = await exited;
      clearTimeout(timer);
      if (code !== 0) throw new Error(ended);
    },
  };
}
