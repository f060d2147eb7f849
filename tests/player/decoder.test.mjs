// The decoder under Node: `node --test tests/player/`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { createRequire } from "node:module";
import { test } from "node:test";
import { synthesize } from "./synthetic.mjs";

const require = createRequire(import.meta.url);
const Decoder = require("../../src/record/player/decoder.js");
const State = require("../../src/record/player/state.js");
const Words = require("../../src/record/player/words.js");

const HEADER = '{"recording":"campanile","v":1,"version":"2.0.0","bytes":0,"high_water":65536,"low_water":16384,"services":["echo"]}';
const open = (...records) =>
    Decoder.open([HEADER, ...records.map((record) => JSON.stringify(record))].join("\n"));

test("a_seek_shows_the_state_of_a_straight_replay", () => {
    for (const seed of [1, 2, 3]) {
        const recording = Decoder.open(synthesize(12_345, seed));
        const places = [0, 1, 999, 1000, 1001, 11_999, 12_000, 12_344, 12_345];
        for (let at = 0; at < 40; at++) places.push((at * 7919 * seed) % 12_346);
        for (const step of places) {
            assert.deepEqual(recording.at(step), State.replay(recording.records, step), `step ${step}`);
        }
    }
});

test("a_seek_replays_at_most_a_thousand_records", () => {
    const recording = Decoder.open(synthesize(5_000));
    for (let step = 0; step <= recording.length; step++) {
        assert.equal(recording.at(step).step, step);
        assert.ok(recording.replayed <= 1000, `${recording.replayed} at step ${step}`);
    }
});

test("a_seek_leaves_the_snapshots_unchanged", () => {
    const recording = Decoder.open(synthesize(3_000));
    const before = structuredClone(recording.snapshots);
    for (const step of [2_999, 1_500, 1_001, 2_000, 10]) recording.at(step);
    assert.deepEqual(recording.snapshots, before);
});

test("reads_and_writes_add_up_to_the_bytes_of_each_connection", () => {
    const recording = Decoder.open(synthesize(40_000, 5));
    const { records } = recording;
    let ends = 0;
    for (let at = 0; at < records.length; at++) {
        if (records[at].k !== "end") continue;
        ends += 1;
        const { bin, bout } = recording.at(at + 1).connections.get(records[at].c);
        assert.deepEqual({ bin, bout }, { bin: records[at].bin, bout: records[at].bout });
    }
    assert.ok(ends > 100, `only ${ends} connections have ended`);
    let [sumIn, sumOut] = [0, 0];
    for (const record of records) {
        if (record.k === "call" && record.f === "read") sumIn += record.n ?? 0;
        if (record.k === "call" && record.f.startsWith("write")) sumOut += record.n ?? 0;
        if (record.k === "gap") [sumIn, sumOut] = [sumIn + record.bin, sumOut + record.bout];
    }
    assert.equal(recording.totals.bin, sumIn);
    assert.equal(recording.totals.bout, sumOut);
});

test("a_gap_keeps_the_sums_exact_and_is_a_finding", () => {
    const recording = open(
        { t: 1, k: "call", f: "read", c: 1, len: 10, n: 4 },
        { t: 2, k: "gap", records: 7, calls: 3, bin: 100, bout: 50 },
        { t: 3, k: "call", f: "write", c: 9, len: 10, n: 10 },
    );
    assert.equal(recording.totals.bin, 104);
    assert.equal(recording.totals.bout, 60);
    assert.equal(recording.totals.lost, 7);
    assert.equal(recording.findings[0].kind, "gap");
    assert.equal(recording.findings[0].moments[0].step, 2);
    // The accept of connection 9 is in the gap.
    assert.equal(recording.at(3).connections.get(9).bout, 10);
});

test("a_last_line_that_is_cut_off_is_counted_and_left_out", () => {
    const whole = synthesize(500);
    const recording = Decoder.open(whole.slice(0, -20));
    assert.equal(recording.length, 499);
    assert.equal(recording.damaged, 1);
    assert.equal(Decoder.open(whole).damaged, 0);
});

test("unknown_kinds_keys_and_wrong_types_are_left_out", () => {
    const recording = open(
        { t: 1, k: "comet", c: 1 }, { t: 2, k: "turn", n: 1, tail: true },
        { t: 3, k: "state", c: { toString: 1 }, in: "open" }, { t: 4, k: "event", src: 7, c: "1" },
        { t: 5, k: "end", c: 1, reason: ["<b>"] }, null, 5, "turn", [], { k: "__proto__" },
    );
    assert.deepEqual(recording.records.map(({ k }) => k), ["turn", "state", "event", "end"]);
    assert.equal(recording.unknown, 6);
    assert.equal(recording.records[3].reason, undefined);
    assert.deepEqual([...recording.at(4).connections.keys()], [1]);
});

test("time_never_runs_backwards", () => {
    const recording = open({ t: 9, k: "turn" }, { t: 3, k: "turn" }, { k: "turn" }, { t: 12, k: "turn" });
    assert.deepEqual(recording.records.map(({ t }) => t), [9, 9, 9, 12]);
});

test("a_text_that_is_no_recording_and_a_later_version_are_refused", () => {
    assert.throws(() => Decoder.open(""), /no recording/);
    assert.throws(() => Decoder.open("[]"), /no recording/);
    assert.throws(() => Decoder.open('{"recording":"campanile","v":2}'), /version 2/);
    assert.equal(Decoder.open(HEADER).length, 0);
});

test("a_packed_recording_is_unpacked", async () => {
    const text = synthesize(300);
    assert.equal(await Decoder.unpack(`\n${gzipSync(text).toString("base64")}\n`), text);
    await assert.rejects(Decoder.unpack("AAAA"));
});

test("the_worst_moments_come_first_and_faults_before_their_consequences", () => {
    const write = (t, c, len, n) => ({ t, k: "call", f: "write", c, len, n });
    const recording = open(
        { t: 1, k: "turn", n: 1 }, { t: 2, k: "poll", events: 1 }, write(3, 1, 100, 90),
        write(4, 2, 100, 10), { t: 5, k: "call", f: "write", c: 2, len: 90, e: "EAGAIN" },
        { t: 6, k: "call", f: "read", c: 1, len: 9, e: "ECONNRESET" },
        { t: 6, k: "fault", c: 3, fault: "echo: stall" },
        { t: 7, k: "turn", n: 2 }, { t: 100, k: "poll", events: 1 }, { t: 900, k: "turn", n: 3 },
    );
    const groups = Object.fromEntries(recording.findings.map((group) => [group.kind, group]));
    assert.deepEqual(recording.findings.map(({ kind }) => kind), ["fault", "reset", "short", "blocked", "turn"]);
    assert.deepEqual(groups.short.moments.map(({ step }) => step), [4, 3]);
    // The 93 microseconds asleep do not count.
    assert.deepEqual(groups.turn.moments.map(({ n, weight }) => [n, weight]), [[2, 800], [1, 5]]);
});

test("steps_go_by_record_event_call_and_turn", () => {
    const recording = Decoder.open(synthesize(2_500));
    for (const unit of ["event", "call", "turn"]) {
        const forward = [];
        for (let at = recording.next(0, unit, 1); at !== null; at = recording.next(at, unit, 1)) forward.push(at);
        const wanted = recording.records.flatMap((record, at) => (record.k === unit ? [at + 1] : []));
        assert.deepEqual(forward, wanted, unit);
        assert.equal(recording.next(forward[3], unit, -1), forward[2]);
        assert.equal(recording.next(forward[0], unit, -1), null);
    }
    assert.equal(recording.next(1, "step", -1), null);
    assert.equal(recording.next(2_500, "step", 1), null);
});

test("every_record_has_a_sentence_and_every_sentence_a_place_or_none_on_purpose", () => {
    const recording = Decoder.open(synthesize(20_000, 4));
    const used = new Set(), state = State.initial();
    recording.records.forEach((record) => {
        State.apply(state, record);
        const { title, text, place } = Words.describe(record, state, recording.header);
        assert.match(text, /^[A-Z0-9#].*\.$/s, title);
        assert.doesNotMatch(title + text, /undefined|NaN|null|\[object/);
        if (place) used.add(place.anchor);
        else assert.match(record.k, /fault|heal|gap/);
    });
    assert.ok(used.size >= 14, [...used].join(" "));
});

test("a_connection_that_failed_is_no_leftover", () => {
    const recording = open(
        { t: 1, k: "call", f: "read", c: 1, len: 9, e: "ECONNRESET" },
        { t: 2, k: "state", c: 1, in: "open", out: "open", r: true, wr: true },
        { t: 3, k: "state", c: 2, in: "open", out: "open", r: true, wr: true },
    );
    const { connections } = recording.at(3);
    assert.equal(connections.get(1).queued, null);
    assert.equal(connections.get(2).queued, "leftover");
    assert.match(Words.describe(recording.records[1], recording.at(2), {}).text, /has failed/);
});

test("a_connection_is_being_made_until_its_call_returns_1", () => {
    const call = (t, keys) => ({ t, k: "call", c: 1, ...keys });
    const recording = open(
        call(1, { f: "connect", peer: "127.0.0.1:9" }), call(2, { f: "connected", n: 0 }),
        call(3, { f: "connected", n: 1 }),
    );
    assert.deepEqual([1, 2, 3].map((step) => recording.at(step).connections.get(1).connecting), [true, true, false]);
});

test("both_sides_of_a_proxied_conversation_belong_together", () => {
    const recording = open(
        { t: 1, k: "call", f: "accept", l: 0, c: 1, service: "db", peer: "127.0.0.1:5" },
        { t: 2, k: "call", f: "accept", l: 0, c: 2, service: "db" },
        { t: 3, k: "call", f: "connect", c: 3, parent: 1, peer: "127.0.0.1:9" },
        { t: 4, k: "call", f: "connect", c: 4, parent: 2 },
        { t: 5, k: "call", f: "connect", c: 5, parent: "1" },
    );
    const lives = recording.grouped();
    assert.deepEqual(lives.map(({ id }) => id), [1, 3, 2, 4, 5]);
    assert.deepEqual(lives.map(({ group }) => group), [1, 1, 2, 2, 5]);
    assert.equal(recording.at(3).connections.get(3).parent, 1);
    const { text } = Words.describe(recording.records[2], recording.at(3), {});
    assert.match(text, /connect #3 to 127\.0\.0\.1:9 for #1:/);
});

test("a_fault_lasts_from_its_begin_to_its_heal_on_a_connection_and_on_a_listener", () => {
    const fault = (t, k, keys) => ({ t, k, ...keys });
    const recording = open(
        { t: 1, k: "call", f: "accept", l: 0, c: 1, service: "echo" },
        fault(2, "fault", { c: 1, fault: "echo: stall" }), fault(3, "fault", { l: 0, fault: "echo: refuse" }),
        fault(4, "heal", { c: 1, fault: "echo: stall" }), fault(5, "fault", { c: 1, fault: "echo: deaf" }),
        fault(6, "heal", { l: 0, fault: "echo: refuse" }), { t: 7, k: "end", c: 1, reason: "finished" },
    );
    assert.deepEqual(recording.lives.get(1).faults, [
        { text: "echo: stall", from: 2, to: 4 }, { text: "echo: deaf", from: 5, to: 7 }]);
    assert.deepEqual(recording.listenerFaults, [{ l: 0, text: "echo: refuse", from: 3, to: 6 }]);
    const at = (step) => Words.describe(recording.records[step - 1], recording.at(step), {});
    assert.equal(at(2).title, "fault begins: #1");
    assert.match(at(2).text, /echo: stall\. The server writes nothing/);
    assert.match(at(3).text, /ECONNREFUSED/);
    assert.equal(at(4).title, "fault ends: #1");
    assert.equal(recording.findings.find(({ kind }) => kind === "fault").count, 3);
});

test("a_call_under_a_fault_names_it_and_an_early_end_names_the_unsent_bytes", () => {
    const call = (t, keys) => ({ t, k: "call", c: 1, ...keys });
    const recording = open(
        { t: 1, k: "fault", c: 1, fault: "daytime: slice 5/20ms" },
        call(2, { f: "write", len: 26, n: 5 }), call(3, { f: "write", len: 21, e: "EAGAIN" }),
        call(4, { f: "read", len: 99, n: 0 }), call(5, { f: "write", len: 21, e: "EPIPE" }),
        { t: 6, k: "end", c: 1, reason: "failed: Broken pipe", bin: 0, bout: 5 },
    );
    const text = (step) => Words.describe(recording.records[step - 1], recording.at(step), {}).text;
    assert.match(text(2), /fault daytime: slice 5\/20ms is in force/);
    assert.match(text(3), /fault daytime: slice 5\/20ms is in force/);
    assert.match(text(4), /21 bytes are unsent/);
    assert.match(text(5), /after 5 bytes.* 21 bytes/);
    assert.match(text(6), /21 bytes were never sent/);
});

test("every_effect_of_the_fault_language_has_a_sentence", () => {
    const source = readFileSync(new URL("../../src/testing/guide.md", import.meta.url), "utf8");
    const effects = [...source.matchAll(/^\| `([a-z-]+)[^|]*\|[^|]*\|[^|]*\| \[`Effect::/gm)].map(([, name]) => name);
    assert.ok(effects.length >= 14, effects.join(" "));
    for (const effect of effects) {
        const { text } = Words.describe({ k: "fault", c: 1, fault: `echo #3: ${effect} 5 for 2s` }, State.initial(), {});
        assert.match(text, /5 for 2s\. [A-Z].*\. The test/, effect);
    }
});

test("empty_records_have_a_sentence_too", () => {
    const kinds = ["turn", "phase", "poll", "event", "call", "state", "fault", "heal", "end", "gap"];
    const recording = open(...kinds.map((k) => ({ t: 1, k })));
    recording.records.forEach((record, at) => {
        const { title, text } = Words.describe(record, recording.at(at + 1), {});
        assert.doesNotMatch(title + text, /undefined|NaN|\[object/);
    });
});

test("hidden_and_reordering_characters_are_shown_as_escapes", () => {
    assert.equal(Words.plain("a\u202eb\0c\u2066</script>"), "a\\u{202e}b\\u{0}c\\u{2066}</script>");
    assert.equal(Words.payload(Buffer.from('a"\n\0\xff', "latin1").toString("base64")), '"a\\"\\n\\0\\xff"');
    assert.equal(Words.payload("not base64!"), "");
});
