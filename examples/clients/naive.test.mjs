// The tutorial's client reads once. Run it with `node --test`.
import assert from "node:assert";
import { connect } from "node:net";
import { test } from "node:test";
import { campanile } from "./campanile.mjs";

const naive = (addr) => new Promise((done) => {
  const client = connect(addr).once("data", (piece) => { client.destroy(); done(piece.length); });
});
const repaired = (addr) => new Promise((done) => {
  let count = 0;
  connect(addr).on("data", (piece) => { count += piece.length; }).on("end", () => done(count));
});

test("one data event is not a message", async () => {
  const server = await campanile();
  const fault = await server.fault("daytime: slice 5/100ms");
  assert.equal(await naive(server.daytime), 5);
  assert.equal(await repaired(server.daytime), 26);
  await fault.remove();
  assert.equal(await naive(server.daytime), 26);
  await server.stop();
});

test("a proxy has an address, and faults on both sides", async () => {
  const behind = await campanile();
  const { host, port } = behind.daytime;
  const server = await campanile({ proxies: { time: `${host}:${port}` } });
  assert.notEqual(server.proxies.time.port, port);
  assert.equal(await repaired(server.proxies.time), 26);
  await server.fault("time: close after 3 bytes");
  assert.equal(await repaired(server.proxies.time), 3);
  assert.equal((await server.event("connecting", { service: "time upstream", id: 2 })).peer, `${host}:${port}`);
  await server.fault("time upstream #3: stall");
  await server.stop();
  await behind.stop();
});

test("an event that does not match stays for a later call", async () => {
  const server = await campanile();
  await repaired(server.daytime);
  assert.equal((await server.event("closed", { service: "daytime" })).bytes_out, 26);
  assert.equal((await server.event("accepted")).id, 1);
  await assert.rejects(server.event("accepted", {}, { within: 10 }), /no accepted within 10 ms; what happened:\n.*listening/);
  await server.stop();
});

test("a missing program is reported with the ways to get it", async () => {
  const { PATH, CAMPANILE_PROGRAM } = process.env;
  Object.assign(process.env, { PATH: "", CAMPANILE_PROGRAM: "" });
  try {
    await assert.rejects(campanile(), /not on PATH.\nRun `cargo install --path \.`/);
  } finally {
    Object.assign(process.env, { PATH });
    if (CAMPANILE_PROGRAM) process.env.CAMPANILE_PROGRAM = CAMPANILE_PROGRAM;
    else delete process.env.CAMPANILE_PROGRAM;
  }
});
