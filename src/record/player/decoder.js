"use strict";
// The decoder: from the bytes of a recording to the state after any step, and to the moments that are
// worth a look. It touches neither the page nor the network, so its tests run it under Node.

const Decoder = (() => {
    const { initial, copy, apply, isWrite, isShort, isBlocked, isByFault, RESETS } =
        typeof State === "object" ? State : require("./state.js");
    // A seek copies the nearest snapshot and replays at most this many records.
    const SPACING = 1000;
    // The number of moments that a list keeps.
    const KEPT = 50;

    const TYPES = {
        t: "number", n: "number", timeout: "number", events: "number", len: "number", c: "number",
        l: "number", parent: "number", unsent: "number", deadline: "number",
        bin: "number", bout: "number", records: "number", calls: "number",
        p: "string", e: "string", src: "string", f: "string", data: "string", peer: "string",
        addr: "string", service: "string", in: "string", out: "string", fault: "string", reason: "string",
        r: "boolean", w: "boolean", special: "boolean", closed: "boolean", paused: "boolean",
        congested: "boolean", wr: "boolean", ww: "boolean",
    };
    const KINDS = new Set([
        "turn", "phase", "poll", "event", "call", "state", "fault", "heal", "end", "gap",
    ]);
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
            const order = ["gap", "fault", "reset", "failed", "short", "blocked", "unsent", "turn"];
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
            findings.add("reset", step, 0, { ...subject, text: record.e ?? "sent by the loop" });
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
            this.listenerFaults = [];
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
                else if (record.l !== undefined) noteFault(this.listenerFaults, record, step, { l: record.l });
                if (record.k === "turn") endTurn(record.t);
                // The time asleep is no work: a turn is measured from the return of its poll.
                if (record.k === "poll") awake = { step: state.turnStep || step, t: record.t, n: state.turn };
                find(found, record, step, state);
            }
            endTurn(state.t);
            for (const fault of this.listenerFaults) fault.to ??= this.length;
            for (const { faults, last } of this.lives.values()) {
                for (const fault of faults) fault.to ??= last;
            }
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
                life = {
                    id: record.c, group: record.c, first: step, last: step, ended: false, unsent: [],
                    at: [], most: 0, faults: [],
                };
                this.lives.set(record.c, life);
            }
            life.last = step;
            life.ended ||= record.k === "end";
            life.service ||= service;
            if (record.f === "connect") life.group = record.parent ?? life.id;
            noteFault(life.faults, record, step, {});
            if (unsent !== (life.unsent.at(-1) ?? 0)) {
                life.at.push(step);
                life.unsent.push(unsent);
                life.most = Math.max(life.most, unsent);
            }
        }

        // Returns the lives by their number, and each connection to a server behind its client's.
        grouped() {
            return [...this.lives.values()].sort((a, b) => a.group - b.group || a.id - b.id);
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

    // Keeps the steps between which a fault is in force.
    function noteFault(faults, { k, fault: text = "" }, step, subject) {
        if (k === "fault") faults.push({ ...subject, text, from: step, to: null });
        if (k !== "heal") return;
        const begun = faults.findLast((fault) => fault.to === null && fault.text === text && fault.l === subject.l);
        if (begun) begun.to = step;
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

    return { SPACING, CLASS, unpack, parse, above, isOrderly, open: (text) => new Recording(parse(text)) };
})();

if (typeof module === "object") module.exports = Decoder;
