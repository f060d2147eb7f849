// The contract of all clients: each situation of contract.json. Run it with `node --test`.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { test } from "node:test";
import { campanile } from "./campanile.mjs";

const DEADLINE = 30000;
const { situations } = JSON.parse(readFileSync(new URL("contract.json", import.meta.url)));

/** A client that keeps what it receives: bytes, then "eof" or "reset"; null while it is open. */
class Client {
  constructor(addr) {
    this.bytes = Buffer.alloc(0);
    this.by = null;
    this.socket = connect({ ...addr, allowHalfOpen: true });
    this.socket.on("data", (piece) => {
      this.bytes = Buffer.concat([this.bytes, piece]);
      this.isFresh = true;
      setImmediate(() => { this.isFresh = false; });
    });
    // If bytes and a reset are both there when libuv looks, it reports the bytes and then an end.
    this.socket.on("end", () => { this.by ??= this.isFresh ? "eof or reset" : "eof"; });
    this.socket.on("error", (error) => { this.by ??= error.code === "ECONNRESET" ? "reset" : error.code; });
    this.opened = new Promise((done) => this.socket.once("connect", () => done(null)).once("error", (e) => done(e.code)));
  }
  /** Waits until this is true, looking after each event of the loop. */
  async until(what, isTrue) {
    for (const began = Date.now(); !isTrue();) {
      assert.ok(Date.now() - began < DEADLINE, `${what}: ${this.bytes}, ${this.by}`);
      await new Promise(setImmediate);
    }
  }
}

const verbs = {
  async fault(run, { fault, as, answer = fault }) {
    run.faults[as] = await run.server.fault(fault);
    assert.equal(run.faults[as].text, answer);
  },
  async wrong(run, { wrong, error }) {
    await assert.rejects(run.server.fault(wrong), (e) => e.message.includes(error));
  },
  remove: (run, step) => run.faults[step.remove].remove(),
  async clear(run, step) { assert.equal(await run.server.clear(), step.clear); },
  advance: (run, step) => run.server.advance(step.advance),
  async connect(run, { connect: name, to, fails }) {
    const client = new Client(run.server[to]);
    const patience = new Promise((done) => setTimeout(done, fails === "timeout" ? 300 : DEADLINE, "ETIMEDOUT").unref());
    const error = await Promise.race([client.opened, patience]);
    if (error) client.socket.destroy();
    assert.equal(error, { refused: "ECONNREFUSED", timeout: "ETIMEDOUT" }[fails] ?? null);
    run.clients[name] = client;
    client.peer = `${client.socket.localAddress}:${client.socket.localPort}`;
  },
  send: (run, { send, text }) => new Promise((done) => run.clients[send].socket.write(text, done)),
  finish: (run, { finish }) => new Promise((done) => run.clients[finish].socket.end(done)),
  close(run, { close }) { run.clients[close].socket.destroy(); },
  async receive(run, { receive, text }) {
    const client = run.clients[receive];
    await client.until(text, () => client.bytes.length >= text.length || client.by);
    assert.equal(client.bytes.subarray(0, text.length).toString(), text);
    client.bytes = client.bytes.subarray(text.length);
  },
  async end(run, { end, by }) {
    const client = run.clients[end];
    await client.until(by, () => client.by);
    assert.equal(client.bytes.toString(), "");
    assert.ok(client.by.split(" or ").includes(by), client.by);
  },
  async silent(run, { silent }) {
    // What is there already is read in the next round of the loop.
    for (let round = 0; round < 3; round += 1) await new Promise(setImmediate);
    const { bytes, by } = run.clients[silent];
    assert.deepEqual([bytes.toString(), by], ["", null]);
  },
  async open(run, { open, ...ledger }) {
    const { peer } = run.clients[open];
    for (const began = Date.now(); ;) {
      const row = (await run.server.connections()).find((row) => row.peer === peer);
      if (row && Object.keys(ledger).every((key) => same(row[key], ledger[key]))) return;
      assert.ok(Date.now() - began < DEADLINE, `${JSON.stringify(row)} is not ${JSON.stringify(ledger)}`);
    }
  },
  async listed(run, { listed }) { assert.equal((await run.server.connections()).length, listed); },
  async closed(run, { closed, ...ledger }) {
    const event = await run.server.event("closed", { peer: run.clients[closed].peer }, { within: DEADLINE });
    for (const [key, value] of Object.entries(ledger)) assert.deepEqual(event[key], value, key);
  },
};
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

for (const { name, options, steps } of situations) {
  test(name, async () => {
    const server = await campanile({ clock: "2014-01-29T19:14:15Z", zone: "utc", ...options });
    const run = { server, clients: {}, faults: {} };
    for (const step of steps) {
      try { await verbs[Object.keys(step)[0]](run, step); } catch (error) {
        error.message = `${JSON.stringify(step)}: ${error.message}`;
        throw error;
      }
    }
    for (const client of Object.values(run.clients)) client.socket.destroy();
    await server.stop();
  });
}
