// Makes recordings of a small model of the loop: echo clients that arrive, send, read slowly, reset
// and leave. `node tests/player/synthetic.mjs RECORDS [SEED]` prints one.

import { fileURLToPath } from "node:url";

const HIGH = 65536, LOW = 16384, READ = 65536;

// A small generator of random numbers, so that a seed always makes the same recording.
function random(seed) {
    let state = seed >>> 0 || 1;
    return (below) => {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        return (state >>> 0) % below;
    };
}

class Model {
    constructor(records, seed) {
        this.most = records;
        this.rnd = random(seed);
        this.t = 0;
        this.ids = 0;
        this.turns = 0;
        this.connections = [];
        this.lines = [JSON.stringify({
            recording: "campanile", v: 1, version: "2.0.0", bytes: 16, high_water: HIGH,
            low_water: LOW, services: ["daytime", "echo"],
        })];
    }

    put(k, keys) {
        this.t += 1 + this.rnd(9);
        for (const key in keys) if (keys[key] === false || keys[key] === undefined) delete keys[key];
        this.lines.push(JSON.stringify({ t: this.t, k, ...keys }));
    }

    get full() {
        return this.lines.length > this.most;
    }

    run() {
        this.put("call", { f: "listen", l: 0, addr: "127.0.0.1:9999", service: "daytime" });
        this.put("call", { f: "listen", l: 1, addr: "127.0.0.1:12345", service: "echo" });
        while (!this.full) this.turn();
        this.lines.length = this.most + 1;
        return `${this.lines.join("\n")}\n`;
    }

    turn() {
        this.put("turn", { n: ++this.turns });
        this.put("phase", { p: "sleep" });
        const arrives = this.connections.length < 3 || (this.connections.length < 24 && this.rnd(6) === 0);
        const woken = this.connections.filter(() => this.rnd(3) === 0);
        const busy = this.connections.some((connection) => connection.leftover);
        if (!busy) this.t += this.rnd(20) === 0 ? this.rnd(900_000) : this.rnd(3_000);
        this.put("poll", { timeout: busy ? 0 : 300_000_000, events: woken.length + (arrives ? 1 : 0) });
        this.put("phase", { p: "note_readiness" });
        if (arrives) this.put("event", { src: "listener", l: 1, r: true });
        for (const connection of woken) this.event(connection);
        this.put("phase", { p: "obey_commands" });
        this.put("phase", { p: "fire_timers" });
        this.put("phase", { p: "accept" });
        const fresh = arrives ? [this.accept()].filter(Boolean) : [];
        this.put("phase", { p: "run_connections" });
        const ran = new Set([...woken, ...fresh]);
        for (const connection of this.connections) {
            if (ran.has(connection) || connection.leftover) this.runConnection(connection);
        }
        this.put("phase", { p: "reap" });
        for (const connection of this.connections.filter(({ over }) => over !== null)) this.end(connection);
        this.connections = this.connections.filter(({ over }) => over === null);
        if (this.rnd(4000) === 0) this.put("gap", { records: 812, calls: 240, bin: 70_000, bout: 65_000 });
    }

    event(connection) {
        if (connection.backlog > 0) connection.window = 8192 + this.rnd(60_000);
        else connection.incoming = this.rnd(5) === 0 ? 40_000 + this.rnd(120_000) : 1 + this.rnd(2_000);
        if (this.rnd(12) === 0) connection.fin = true;
        if (this.rnd(160) === 0) connection.reset = true;
        connection.r = true;
        connection.w ||= connection.window > 0;
        const special = connection.fin || connection.reset;
        this.put("event", { src: "connection", c: connection.c, r: true, w: connection.w, special });
    }

    accept() {
        if (this.rnd(400) === 0) {
            this.put("call", { f: "accept", l: 1, e: "EMFILE" });
            return null;
        }
        const c = ++this.ids;
        const connection = {
            c, backlog: 0, window: 24_000 + this.rnd(90_000), incoming: 1 + this.rnd(3_000), fin: false,
            reset: false, r: true, w: true, in: "open", out: "open", bin: 0, bout: 0, over: null,
            congested: false, leftover: false, isNew: true,
        };
        this.put("call", { f: "accept", l: 1, c, peer: `127.0.0.1:${40_000 + c % 20_000}`, service: "echo" });
        if (c % 9 === 0) this.put("fault", { c, fault: "echo: short 3" });
        this.put("call", { f: "rearm", l: 1 });
        this.connections.push(connection);
        return connection;
    }

    runConnection(connection) {
        let budget = HIGH;
        this.flush(connection);
        while (connection.over === null && connection.r && connection.in === "open" && !connection.congested && budget > 0) {
            budget -= this.read(connection);
        }
        if (connection.in === "ended" && connection.out === "open" && connection.over === null) {
            connection.out = connection.backlog > 0 ? "flushing" : this.shut(connection);
        }
        if (connection.out === "flushing" && connection.backlog === 0) connection.out = this.shut(connection);
        if (connection.isNew && connection.over === null) this.put("call", { f: "register", c: connection.c });
        connection.isNew = false;
        connection.leftover = connection.over === null && budget <= 0 && connection.r && !connection.congested;
        const { c, r, w, backlog } = connection;
        this.put("state", {
            c, in: connection.in, out: connection.out, congested: connection.congested, r, w,
            wr: connection.in === "open" && !connection.congested, ww: backlog > 0, unsent: backlog,
            deadline: this.t + 300_000_000,
        });
        if (connection.in === "ended" && connection.out === "shut") connection.over ??= "finished";
    }

    shut(connection) {
        this.put("call", { f: "shutdown", c: connection.c });
        return "shut";
    }

    read(connection) {
        const { c } = connection;
        const len = Math.min(READ, HIGH - Math.min(connection.backlog, HIGH - 1));
        if (connection.reset) {
            this.put("call", { f: "read", c, len, e: "ECONNRESET" });
            connection.over = "failed: Connection reset by peer (os error 104)";
            return 0;
        }
        if (connection.incoming === 0) {
            if (connection.fin) {
                this.put("call", { f: "read", c, len, n: 0 });
                connection.in = "ended";
            } else {
                this.put("call", { f: "read", c, len, e: "EAGAIN" });
                connection.r = false;
            }
            return 0;
        }
        const n = Math.min(len, connection.incoming);
        connection.incoming -= n;
        connection.bin += n;
        this.put("call", { f: "read", c, len, n, data: Buffer.from("Hello, world\nHow\0").toString("base64") });
        connection.backlog += n;
        this.flush(connection);
        return n;
    }

    flush(connection) {
        while (connection.backlog > 0 && connection.w && connection.over === null) {
            const len = connection.backlog;
            const f = connection.out === "flushing" ? "write_last" : "write";
            const n = Math.min(len, connection.window);
            if (n === 0) {
                this.put("call", { f, c: connection.c, len, e: "EAGAIN" });
                connection.w = false;
                break;
            }
            connection.window -= n;
            connection.backlog -= n;
            connection.bout += n;
            this.put("call", { f, c: connection.c, len, n });
        }
        if (connection.backlog === 0) connection.window = Math.max(connection.window, 24_000 + this.rnd(60_000));
        if (connection.backlog >= HIGH / 2) connection.congested = true;
        if (connection.backlog <= LOW) connection.congested = false;
    }

    end(connection) {
        this.put("call", { f: "close", c: connection.c });
        this.put("end", { c: connection.c, reason: connection.over, bin: connection.bin, bout: connection.bout });
    }
}

export function synthesize(records, seed = 1) {
    return new Model(records, seed).run();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    process.stdout.write(synthesize(Number(process.argv[2] ?? 1000), Number(process.argv[3] ?? 1)));
}
