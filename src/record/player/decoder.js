"use strict";
// The decoder: from the bytes of a recording to the state of the loop after any step. It touches
// neither the page nor the network, so its tests run it under Node.

const Decoder = (() => {
    // A seek copies the nearest snapshot and replays at most this many records.
    const SPACING = 1000;
    // The number of moments that a list keeps.
    const KEPT = 50;

    const TYPES = {
        t: "number", n: "number", timeout: "number", events: "number", len: "number", c: "number",
        l: "number", unsent: "number", deadline: "number", fresh: "number", left: "number",
        bin: "number", bout: "number", records: "number", calls: "number",
        p: "string", e: "string", src: "string", f: "string", data: "string", peer: "string",
        addr: "string", service: "string", in: "string", out: "string", fault: "string", reason: "string",
        r: "boolean", w: "boolean", special: "boolean", closed: "boolean", paused: "boolean",
        congested: "boolean", wr: "boolean", ww: "boolean",
    };
    const KINDS = new Set([
        "turn", "phase", "poll", "event", "call", "state", "queue", "fault", "heal", "end", "gap",
    ]);
    const PHASES = [
        "sleep", "note_readiness", "obey_commands", "fire_timers", "accept", "run_connections", "reap",
    ];
    const RESETS = new Set(["ECONNRESET", "EPIPE"]);
    // The classes of a record, as the lanes and the map draw them.
    const CLASS = {
        loop: 0, event: 1, read: 2, write: 3, call: 4, blocked: 5, short: 6, fault: 7, failed: 8, gap: 9,
    };

    // Decodes base64 and decompresses gzip. Throws if either is damaged.
    async function unpack(base64) {
        const text = atob(base64.trim());
        const bytes = new Uint8Array(text.length);
        for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
        const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
        return new Response(stream).text();
    }

    // Removes the keys whose value has the wrong type. Returns whether the record is usable.
    function clean(record) {
        if (record === null || typeof record !== "object" || !KINDS.has(record.k)) return false;
        for (const key in record) {
            const type = TYPES[key];
            if (type !== undefined && typeof record[key] !== type) delete record[key];
        }
        return true;
    }

    // Parses the lines of a recording. Unknown kinds are left out; lines that are not JSON are
    // counted, because the last one is often cut off.
    function parse(text) {
        const lines = text.split("\n");
        let header = null;
        try {
            header = JSON.parse(lines[0]);
        } catch { /* The next check reports it. */ }
        if (header === null || typeof header !== "object" || header.recording !== "campanile") {
            throw new Error("this is no recording of campanile: its first line is not a header");
        }
        if (header.v !== 1) {
            throw new Error(`this page reads version 1 of the format, but the recording has version ${
                String(header.v)}; render it with the campanile that recorded it`);
        }
        const records = [];
        let damaged = 0, unknown = 0, last = 0;
        for (let at = 1; at < lines.length; at++) {
            if (lines[at] === "") continue;
            let record;
            try {
                record = JSON.parse(lines[at]);
            } catch {
                damaged += 1;
                continue;
            }
            if (!clean(record)) {
                unknown += 1;
                continue;
            }
            // The clock is monotonic. A record without a time takes that of the one before it.
            record.t = record.t >= last ? record.t : last;
            last = record.t;
            records.push(record);
        }
        return { header, records, damaged, unknown };
    }

    function initial() {
        return {
            step: 0, t: 0, turn: 0, turnStep: 0, phase: null, asleep: false, poll: null, queue: null,
            connections: new Map(), listeners: new Map(), ended: [],
            totals: {
                calls: 0, reads: 0, writes: 0, bin: 0, bout: 0, opened: 0, ended: 0, short: 0,
                blocked: 0, failed: 0, lost: 0, lostCalls: 0,
            },
        };
    }

    function copy(state) {
        return {
            ...state, connections: new Map(state.connections), listeners: new Map(state.listeners),
            totals: { ...state.totals },
        };
    }

    const BLANK = {
        listener: null, service: "", peer: "", in: "open", out: "open", closed: false, paused: false,
        congested: false, r: false, w: false, wr: false, ww: false, unsent: 0, deadline: null, bin: 0,
        bout: 0, faults: [], queued: null, connecting: false, reason: null, since: 0,
    };

    // Connections and listeners are replaced, never changed, so that snapshots can share them.
    function update(map, id, change, blank) {
        const before = map.get(id) ?? { ...blank, id };
        const after = { ...before, ...change(before) };
        map.set(id, after);
        return after;
    }

    function updateConnection(state, id, change) {
        const blank = state.connections.has(id) ? BLANK : { ...BLANK, since: state.step };
        return update(state.connections, id, change, blank);
    }

    function updateListener(state, key, change) {
        const blank = { peer: "", service: "", ready: true, paused: null, accepted: 0, faults: [] };
        return update(state.listeners, key, change, blank);
    }

    const isWrite = (call) => call.f === "write" || call.f === "write_last";
    const isShort = (call) => isWrite(call) && call.n !== undefined && call.n < (call.len ?? 0);
    // An error that a fault of the test server has made, not the kernel.
    const isByFault = (call) => call.e?.startsWith("closed by fault") === true;
    const isBlocked = (call) => call.e === "EAGAIN" || call.e === "EWOULDBLOCK";

    function applyCall(state, call) {
        const { totals } = state;
        totals.calls += 1;
        if (isBlocked(call)) totals.blocked += 1;
        else if (call.e !== undefined) totals.failed += 1;
        if (call.l !== undefined) applyListenerCall(state, call);
        if (call.c !== undefined) {
            if (call.f === "read") applyRead(state, call);
            else if (isWrite(call)) applyWrite(state, call);
            else applyOther(state, call);
        }
    }

    function applyListenerCall(state, call) {
        if (call.f === "listen") {
            updateListener(state, call.l, () => ({ peer: call.addr ?? "", service: call.service ?? "" }));
        } else if (call.f === "rearm") {
            updateListener(state, call.l, () => ({ ready: call.e !== undefined }));
        } else if (call.f === "accept") {
            updateListener(state, call.l, (was) => {
                if (isBlocked(call)) return { ready: false, paused: null };
                if (call.e !== undefined) return { paused: call.e };
                return { accepted: was.accepted + 1, paused: null, service: was.service || call.service || "" };
            });
        }
    }

    function applyRead(state, call) {
        updateConnection(state, call.c, (was) => {
            if (isBlocked(call)) return { r: false };
            if (call.e !== undefined) return {};
            if (call.n === 0) return { in: "ended" };
            state.totals.reads += 1;
            state.totals.bin += call.n ?? 0;
            return { bin: was.bin + (call.n ?? 0) };
        });
    }

    function applyWrite(state, call) {
        updateConnection(state, call.c, (was) => {
            const offered = call.len ?? 0;
            if (isBlocked(call)) return { w: false, unsent: Math.max(was.unsent, offered) };
            if (call.e !== undefined) return {};
            const taken = call.n ?? 0;
            state.totals.writes += 1;
            state.totals.bout += taken;
            if (isShort(call)) state.totals.short += 1;
            // An estimate within a run; the `state` after the run is exact.
            return { bout: was.bout + taken, unsent: Math.max(was.unsent - taken, offered - taken, 0) };
        });
    }

    function applyOther(state, call) {
        updateConnection(state, call.c, (was) => {
            const names = { peer: call.peer ?? was.peer, service: call.service ?? was.service };
            switch (call.f) {
                case "accept":
                    state.totals.opened += 1;
                    return {
                        ...names, listener: call.l ?? null, r: true, w: true, wr: true, queued: "fresh",
                        service: call.service ?? state.listeners.get(call.l)?.service ?? "",
                    };
                case "connect":
                    state.totals.opened += 1;
                    return { ...names, connecting: true, ww: true };
                case "connected":
                    if (isBlocked(call)) return { w: false };
                    return call.e === undefined ? { ...names, connecting: false } : {};
                case "shutdown":
                    return { out: "shut" };
                default:
                    return names;
            }
        });
    }

    function applyState(state, record) {
        const has = (key) => record[key] === true;
        const [r, w, wr, ww] = [has("r"), has("w"), has("wr"), has("ww")];
        updateConnection(state, record.c, () => ({
            r, w, wr, ww, in: record.in ?? "open", out: record.out ?? "open", closed: has("closed"),
            paused: has("paused"), congested: has("congested"), unsent: record.unsent ?? 0,
            deadline: record.deadline ?? null,
            // Work that no event will report puts the connection back on the run queue.
            queued: (r && wr) || (w && ww) ? "leftover" : null,
        }));
    }

    function applyEvent(state, record) {
        if (record.src === "listener" && record.l !== undefined) {
            updateListener(state, record.l, () => ({ ready: true }));
        } else if (record.src === "connection" && record.c !== undefined) {
            updateConnection(state, record.c, (was) => ({
                r: was.r || record.r === true, w: was.w || record.w === true,
                queued: was.queued ?? "fresh",
            }));
        }
    }

    function applyFault(state, record) {
        const change = (was) => {
            const others = was.faults.filter((fault) => fault !== record.fault);
            return { faults: record.k === "fault" ? [...others, record.fault ?? ""] : others };
        };
        if (record.c !== undefined) updateConnection(state, record.c, change);
        else if (record.l !== undefined) updateListener(state, record.l, change);
    }

    function applyEnd(state, record) {
        if (record.c === undefined) return;
        state.totals.ended += 1;
        updateConnection(state, record.c, () => ({
            reason: record.reason ?? "", queued: null, deadline: null, r: false, w: false, wr: false,
            ww: false,
        }));
        // It stays visible until the next turn begins.
        state.ended = [...state.ended, record.c];
    }

    // Applies one record to a state.
    function apply(state, record) {
        state.step += 1;
        state.t = record.t;
        switch (record.k) {
            case "turn":
                for (const id of state.ended) state.connections.delete(id);
                Object.assign(state, {
                    ended: [], turn: record.n ?? state.turn + 1, turnStep: state.step, poll: null,
                    phase: null, queue: null,
                });
                break;
            case "phase":
                state.phase = record.p ?? null;
                state.asleep = record.p === "sleep";
                break;
            case "poll":
                state.poll = record;
                state.asleep = false;
                break;
            case "event": applyEvent(state, record); break;
            case "call": applyCall(state, record); break;
            case "state": if (record.c !== undefined) applyState(state, record); break;
            case "queue": state.queue = record; break;
            case "fault": case "heal": applyFault(state, record); break;
            case "end": applyEnd(state, record); break;
            case "gap":
                state.totals.lost += record.records ?? 0;
                state.totals.lostCalls += record.calls ?? 0;
                state.totals.bin += record.bin ?? 0;
                state.totals.bout += record.bout ?? 0;
                break;
        }
    }

    // Returns the state after `step` records, from the beginning. The tests compare seeks with it.
    function replay(records, step) {
        const state = initial();
        for (let at = 0; at < step; at++) apply(state, records[at]);
        return state;
    }

    function classify(record) {
        switch (record.k) {
            case "event": return CLASS.event;
            case "fault": case "heal": return CLASS.fault;
            case "gap": return CLASS.gap;
            case "end": return isOrderly(record.reason) ? CLASS.call : CLASS.failed;
            case "call":
                if (isBlocked(record)) return CLASS.blocked;
                if (isByFault(record)) return CLASS.fault;
                if (record.e !== undefined || record.f === "reset") return CLASS.failed;
                if (isShort(record)) return CLASS.short;
                if (record.f === "read") return CLASS.read;
                return isWrite(record) ? CLASS.write : CLASS.call;
            default: return CLASS.loop;
        }
    }

    const isOrderly = (reason) => reason === undefined || reason === "finished";

    // The moments that deserve a look: for each kind a count, and the worst first.
    class Findings {
        constructor() {
            this.groups = new Map();
        }

        add(kind, step, weight, subject) {
            const group = this.groups.get(kind) ?? { kind, count: 0, moments: [] };
            this.groups.set(kind, group);
            group.count += 1;
            group.moments.push({ step, weight, ...subject });
            if (group.moments.length > 4 * KEPT) this.trim(group);
        }

        trim(group) {
            group.moments.sort((a, b) => b.weight - a.weight || a.step - b.step);
            group.moments.length = Math.min(group.moments.length, KEPT);
        }

        // Returns the groups, the worst kind first.
        sorted() {
            const order = ["gap", "reset", "failed", "fault", "short", "blocked", "unsent", "turn"];
            for (const group of this.groups.values()) this.trim(group);
            return order.filter((kind) => this.groups.has(kind)).map((kind) => this.groups.get(kind));
        }
    }

    function find({ findings, most, failed }, record, step, state) {
        const subject = { c: record.c, l: record.l };
        if (record.k === "gap") findings.add("gap", step, record.records ?? 0, subject);
        if (record.k === "fault") findings.add("fault", step, 0, { ...subject, text: record.fault });
        if (record.k === "poll" && record.e !== undefined && record.e !== "EINTR") {
            findings.add("failed", step, 1, { text: record.e });
        }
        if (record.k === "end" && !isOrderly(record.reason)) {
            // A connection whose call has failed is in the list already.
            const unsent = state.connections.get(record.c)?.unsent ?? 0;
            if (!failed.has(record.c)) findings.add("failed", step, unsent, { ...subject, text: record.reason });
        }
        if (record.k === "state" && (record.unsent ?? 0) > (most.get(record.c)?.weight ?? 0)) {
            most.set(record.c, { step, weight: record.unsent });
        }
        if (record.k !== "call") return;
        if (isShort(record)) {
            findings.add("short", step, record.len - record.n, subject);
        } else if (isBlocked(record)) {
            const weight = isWrite(record) ? record.len ?? 1 : 0;
            findings.add("blocked", step, weight, { ...subject, text: record.f });
        } else if (RESETS.has(record.e) || record.f === "reset") {
            failed.add(record.c);
            findings.add("reset", step, 0, { ...subject, text: record.e ?? "sent" });
        } else if (isByFault(record)) {
            failed.add(record.c);
            findings.add("fault", step, 1, { ...subject, text: record.e });
        } else if (record.e !== undefined) {
            failed.add(record.c);
            findings.add("failed", step, 0, { ...subject, text: record.e });
        }
    }

    class Recording {
        constructor({ header, records, damaged, unknown }) {
            Object.assign(this, { header, records, damaged, unknown });
            this.classes = new Uint8Array(records.length);
            this.lives = new Map();
            // Steps by unit. A step is the number of records that have been applied, from 1.
            this.steps = { event: [], call: [], turn: [] };
            this.snapshots = [];
            this.replayed = 0;
            this.index();
        }

        get length() {
            return this.records.length;
        }

        index() {
            const findings = new Findings(), most = new Map(), state = initial();
            const found = { findings, most, failed: new Set() };
            let awake = null;
            const endTurn = (t) => {
                if (awake !== null) findings.add("turn", awake.step, t - awake.t, { n: awake.n });
                awake = null;
            };
            for (let at = 0; at < this.records.length; at++) {
                if (at % SPACING === 0) this.snapshots.push(copy(state));
                const record = this.records[at], step = at + 1;
                apply(state, record);
                this.classes[at] = classify(record);
                this.steps[record.k]?.push(step);
                if (record.c !== undefined) this.note(record, step, state.connections.get(record.c));
                if (record.k === "turn") endTurn(record.t);
                // The time asleep is no work: a turn is measured from the return of its poll.
                if (record.k === "poll") awake = { step: state.turnStep || step, t: record.t, n: state.turn };
                find(found, record, step, state);
            }
            endTurn(state.t);
            for (const [c, { step, weight }] of most) findings.add("unsent", step, weight, { c });
            this.findings = findings.sorted();
            this.totals = state.totals;
            this.turns = state.turn;
            this.duration = state.t;
            if (this.records.length % SPACING === 0) this.snapshots.push(copy(state));
        }

        // Keeps the life of a connection: its steps, and its unsent bytes as they change.
        note(record, step, { unsent = 0, service = "" } = {}) {
            let life = this.lives.get(record.c);
            if (life === undefined) {
                life = { id: record.c, first: step, last: step, ended: false, unsent: [], at: [], most: 0 };
                this.lives.set(record.c, life);
            }
            life.last = step;
            life.ended ||= record.k === "end";
            life.service ||= service;
            if (unsent !== (life.unsent.at(-1) ?? 0)) {
                life.at.push(step);
                life.unsent.push(unsent);
                life.most = Math.max(life.most, unsent);
            }
        }

        // Returns the state after `step` records: the nearest snapshot, and a short replay.
        at(step) {
            const end = Math.max(0, Math.min(step, this.length));
            const nearest = Math.floor(end / SPACING);
            const state = copy(this.snapshots[nearest]);
            this.replayed = end - nearest * SPACING;
            for (let at = nearest * SPACING; at < end; at++) apply(state, this.records[at]);
            return state;
        }

        // Returns the next step of a unit in a direction (1 or -1), or null.
        next(step, unit, direction) {
            if (unit === "step") {
                const to = step + direction;
                return to >= 1 && to <= this.length ? to : null;
            }
            const steps = this.steps[unit];
            const at = direction > 0 ? above(steps, step) : above(steps, step - 1) - 1;
            return steps[at] ?? null;
        }
    }

    // Returns the index of the first element that is larger than `value`.
    function above(sorted, value) {
        let [low, high] = [0, sorted.length];
        while (low < high) {
            const middle = (low + high) >> 1;
            if (sorted[middle] > value) high = middle;
            else low = middle + 1;
        }
        return low;
    }

    return {
        SPACING, PHASES, CLASS, RESETS, unpack, parse, initial, apply, replay, above, isWrite, isShort,
        isBlocked, isByFault, isOrderly, open: (text) => new Recording(parse(text)),
    };
})();

if (typeof module === "object") module.exports = Decoder;
