"use strict";
// The state of the loop: what one record changes in it.

const State = (() => {
    const PHASES = [
        "sleep", "note_readiness", "obey_commands", "fire_timers", "accept", "run_connections", "reap",
    ];
    const RESETS = new Set(["ECONNRESET", "EPIPE"]);

    function initial() {
        return {
            step: 0, t: 0, turn: 0, turnStep: 0, phase: null, asleep: false, poll: null,
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
        bout: 0, faults: [], queued: null, connecting: false, parent: null, failed: false, reason: null, since: 0,
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
            updateListener(state, call.l, () => ({ peer: call.addr ?? "", service: call.service ?? "", paused: call.e ?? null }));
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
            if (call.e !== undefined) return { failed: call.e !== "EINTR" };
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
            if (call.e !== undefined) return { failed: call.e !== "EINTR" };
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
                    return { ...names, connecting: true, ww: true, parent: call.parent ?? null };
                case "connected":
                    if (call.e !== undefined) return { failed: true };
                    return call.n === 1 ? { ...names, connecting: false } : { w: false };
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
        updateConnection(state, record.c, ({ failed }) => ({
            r, w, wr, ww, in: record.in ?? "open", out: record.out ?? "open", closed: has("closed"),
            paused: has("paused"), congested: has("congested"), unsent: record.unsent ?? 0,
            deadline: record.deadline ?? null,
            // Work that no event will report puts the connection back on the run queue.
            queued: !failed && ((r && wr) || (w && ww)) ? "leftover" : null,
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
                    phase: null,
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

    return { PHASES, RESETS, initial, copy, apply, replay, isWrite, isShort, isBlocked, isByFault };
})();

if (typeof module === "object") module.exports = State;
