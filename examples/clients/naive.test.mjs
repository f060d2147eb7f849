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
  assert.equal(await naive(server.daytime), 26);
  await server.fault("daytime: slice 5/20ms");
  assert.equal(await naive(server.daytime), 5);
  assert.equal(await repaired(server.daytime), 26);
  server.stop();
});
