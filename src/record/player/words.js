"use strict";
// What each record means: the call as text, one sentence, and the place in the core that did it.

const Words = (() => {
    const { isWrite, isShort, isBlocked, isByFault, RESETS } = typeof State === "object" ? State : require("./state.js");
    const { isOrderly } = typeof Decoder === "object" ? Decoder : require("./decoder.js");

    // Where the core does it. A test checks that each file has the function, the anchor of the guide,
    // and the line.
    const PLACES = {
        turn: ["src/reactor.rs", "turn", "turn", "self.sleep(timeout)?;"],
        sleep: ["src/reactor.rs", "sleep", "sleep", "let outcome = self.kernel.poll(match (next, timeout) {"],
        poll: ["src/reactor.rs", "sleep", "sleep", "self.cx.begin_turn(self.kernel.now());"],
        busy: ["src/reactor.rs", "next_timeout", "zero-timeout", "return Some(Duration::ZERO);"],
        note_readiness: ["src/reactor.rs", "note_readiness", "full-batch", "self.was_full = count == self.kernel.capacity() || (self.was_interrupted && self.was_full);"],
        obey_commands: ["src/mailbox.rs", "post", "mailbox", "let mut mail = self.lock();"],
        fire_timers: ["src/reactor.rs", "fire_timers", "timers", "while let Some(key) = self.timers.pop_due(self.cx.millis) {"],
        run_connections: ["src/reactor.rs", "run_connections", "fresh-first", "let fresh = self.run_queue.take(&mut batch, &mut self.connections);"],
        reap: ["src/reactor.rs", "reap", "reap", "self.drop_closed();"],
        waker: ["src/kernel.rs", "wake", "waker", "fn wake(&self) -> io::Result<()>;"],
        hint: ["src/kernel.rs", "events", "hint", "let has_special_bits = event.is_error()"],
        event: ["src/connection/readiness.rs", "on_event", "readiness", "self.set(readable, writable);"],
        accept: ["src/connection.rs", "new", "assumed-ready", "ready: Readiness::ASSUMED,"],
        drained: ["src/listener.rs", "rearm", "rearm", "self.ready = self.ready && kernel.rearm(&mut self.inner, key).is_err();"],
        exhausted: ["src/listener.rs", "exhausted", "emfile", "self.pause = Pause::Exhausted { until: now + RETRY };"],
        eof: ["src/connection.rs", "run", "eof", "self.state.input = Input::Ended;"],
        short_read: ["src/connection.rs", "run", "short-read", "if count < size && self.ready.is_drained_by_short_read() {"],
        full_read: ["src/connection.rs", "room", "interest", "cx.bounds.high_water.saturating_sub(self.send_queue.len()).min(cx.read_buffer.len())"],
        read_blocked: ["src/connection/io.rs", "on_read_error", "would-block", "self.ready.clear_readable();"],
        read_failed: ["src/connection/io.rs", "on_read_error", "would-block", "_ => Err(CloseReason::Failed(error)),"],
        discard: ["src/connection/io.rs", "discard", "linger", "extra.discarded += count;"],
        write: ["src/connection/io.rs", "flush", "cursor", "cx.write_budget -= taken;"],
        short_write: ["src/connection/io.rs", "flush", "cursor", "true => self.send_queue.consume(taken),"],
        write_blocked: ["src/connection/io.rs", "flush", "cursor", "Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.clear_writable(),"],
        write_failed: ["src/connection/io.rs", "flush", "cursor", "Err(error) => return Err(CloseReason::Failed(error)),"],
        shutdown: ["src/connection/io.rs", "shut", "fin", "self.state.output = Output::Shut;"],
        reset: ["src/kernel/socket.rs", "abort", "reset", "let _ = self.as_ref().set_linger(Some(Duration::ZERO));"],
        register: ["src/kernel.rs", "register", "edge", "fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool) -> io::Result<()>;"],
        listen: ["src/kernel/socket.rs", "bind_tcp", "backlog", "socket.listen(backlog(limits))?;"],
        congested: ["src/connection.rs", "room", "interest", "} else if congested {"],
        drain: ["src/connection.rs", "has_drained", "drain", "&& self.send_queue.len() <= cx.bounds.low_water"],
        queue: ["src/send_queue.rs", "unsent", "send-queue", "&self.bytes[self.head..]"],
        idle: ["src/connection.rs", "run", "io-first", "return self.check_deadline(room > 0 || has_drained || self.can_write(), cx);"],
        finished: ["src/connection.rs", "has_finished", "finished", "self.state.input == Input::Ended && self.state.output == Output::Shut"],
        run_queue: ["src/reactor.rs", "run_connections", "fresh-first", "self.run_connection(key, budget);"],
    };

    const ERRORS = {
        EADDRINUSE: "another socket has this address",
        EACCES: "this user may not have this address",
        EMFILE: "this process has no file descriptor left",
        ENFILE: "the system has no file descriptor left",
        ENOMEM: "the kernel has no memory left",
        ENOBUFS: "the kernel has no buffer left",
        ECONNABORTED: "the client has gone before it was accepted",
        ECONNREFUSED: "no server listens there",
        ETIMEDOUT: "the peer has not answered",
        EINTR: "a signal interrupted the call",
    };

    // What an effect of the fault language does, by its first word.
    const EFFECTS = {
        delay: "The server holds each answer back.",
        slice: "The server writes small pieces, with a pause after each.",
        rate: "The server writes no faster than this.",
        short: "Each write takes only a part. The peer does not notice: the loop's own partial writes are exercised.",
        stall: "The server writes nothing more: the peer waits in silence.",
        deaf: "The server reads nothing more: the peer's window fills, then its writes block.",
        corrupt: "One bit of that byte is flipped.",
        "hold-open": "The server ignores the peer's EOF: the peer waits for an EOF in return.",
        shut: "The server ends its half early: the peer reads EOF, and can still send.",
        close: "The server ends the connection early: the peer reads EOF before it has everything.",
        reset: "The server resets the connection: the peer's next call fails with ECONNRESET.",
        refuse: "The listener is closed: a client that connects gets ECONNREFUSED.",
        "never-accept": "The server does not accept: clients connect, and then wait.",
        unreachable: "The backlog is kept full, so the kernel drops every SYN: a client that connects times out.",
    };

    const number = new Intl.NumberFormat("en-US");
    const count = (value, noun) => `${number.format(value)} ${noun}${value === 1 ? "" : "s"}`;
    const bytes = (value) => count(value, "byte");

    // A duration in microseconds, in the unit that reads best.
    function time(us) {
        if (us < 1000) return `${number.format(Math.round(us))} µs`;
        if (us < 1e6) return `${number.format(Math.round(us / 10) / 100)} ms`;
        if (us < 600e6) return `${number.format(Math.round(us / 1e4) / 100)} s`;
        return `${number.format(Math.round(us / 6e6) / 10)} min`;
    }

    // A short form for tables and maps.
    function size(value) {
        if (value < 1024) return `${number.format(value)} B`;
        if (value < 1048576) return `${number.format(Math.round(value / 102.4) / 10)} KiB`;
        return `${number.format(Math.round(value / 104857.6) / 10)} MiB`;
    }

    // Text from a peer: characters that are invisible, or that change the order of the text, are
    // shown as escapes.
    function plain(text, most = 200) {
        const shown = String(text).slice(0, most).replace(
            /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g,
            (char) => `\\u{${char.codePointAt(0).toString(16)}}`,
        );
        return text.length > most ? `${shown}…` : shown;
    }

    // The first bytes of a payload as C writes them.
    function payload(base64, most = 20) {
        let raw;
        try {
            raw = atob(base64);
        } catch {
            return "";
        }
        const names = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0", '"': '\\"', "\\": "\\\\" };
        const shown = raw.slice(0, most).replace(/[^\x20-\x7e]|["\\]/g, (char) =>
            names[char] ?? `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`);
        return `"${shown}"${raw.length > most ? "…" : ""}`;
    }

    const named = (record) => record.c !== undefined ? `#${record.c}` :
        record.l !== undefined ? `listener ${record.l}` : "the loop";

    // The call as strace writes it, with `#3` for the descriptor of connection 3.
    function syscall(record) {
        const result = isByFault(record) ? "-1" : record.e !== undefined ? `-1 ${plain(record.e)}` :
            record.f === "accept" ? `#${record.c ?? "?"}` : `${record.n ?? 0}`;
        switch (record.f) {
            case "accept": return `accept(listener ${record.l ?? "?"}) = ${result}`;
            case "listen": return `listen(listener ${record.l ?? "?"}) = ${result}`;
            case "rearm": return `epoll_ctl(MOD, listener ${record.l ?? "?"}) = ${result}`;
            case "register": return `epoll_ctl(ADD, ${named(record)}) = ${result}`;
            case "shutdown": return `shutdown(${named(record)}, SHUT_WR) = ${result}`;
            case "reset": return `setsockopt(${named(record)}, SO_LINGER, 0) = ${result}`;
            case "connect": return `connect(${named(record)}, ${plain(record.peer ?? "?")}) = ${result}`;
            case "connected": return `getsockopt(${named(record)}, SO_ERROR) = ${result}`;
            case "read": case "write": case "write_last": {
                const data = record.data === undefined ? "" : `${payload(record.data)}, `;
                const name = record.f === "read" ? "read" : record.f === "write" ? "write" : "send";
                const flag = record.f === "write_last" ? ", MSG_MORE" : "";
                return `${name}(${named(record)}, ${data}${record.len ?? "?"}${flag}) = ${result}`;
            }
            default: return `${plain(record.f ?? "call")}(${named(record)}) = ${result}`;
        }
    }

    function title(record) {
        switch (record.k) {
            case "turn": return `turn ${record.n ?? "?"}`;
            case "phase": return `phase ${plain(record.p ?? "?")}`;
            case "poll": {
                const timeout = record.timeout === undefined ? "no timeout" : time(record.timeout);
                return `epoll_wait(${timeout}) = ${record.e === undefined ? record.events ?? 0 : `-1 ${plain(record.e)}`}`;
            }
            case "event": return `event ${record.src === "waker" ? "waker" : named(record)}${bits(record)}`;
            case "call": return syscall(record);
            case "state": return `state ${named(record)}`;
            case "fault": return `fault begins: ${named(record)}`;
            case "heal": return `fault ends: ${named(record)}`;
            case "end": return `end ${named(record)}`;
            default: return record.k;
        }
    }

    const bits = (record) =>
        `${record.r ? " readable" : ""}${record.w ? " writable" : ""}${record.special ? " special" : ""}`;

    const PHASE_TEXTS = {
        sleep: "The loop asks the kernel for events, and sleeps until one comes or a deadline is due. No other place in the loop blocks.",
        note_readiness: "The loop turns each event into readiness bits. It does so before any slot is freed or reused, so no event can reach a newer connection.",
        obey_commands: "The loop runs the commands that other threads and other connections have posted.",
        fire_timers: "The loop puts each connection whose deadline is due on the run queue. A deadline is a hint: the run does the I/O first, then checks it.",
        accept: "The loop accepts new connections from each listener that is ready.",
        run_connections: "The loop runs each connection that has an event, with a small budget, then the oldest leftover with the full one. No stream can keep the others waiting.",
        reap: "The loop drops the connections that have closed. Their slots are free from the next turn on.",
    };

    function describePoll(record) {
        const events = record.events ?? 0;
        if (record.e === "EINTR") return ["A signal interrupted the poll. There are no events; the next turn computes its timeout again.", "poll"];
        if (record.e !== undefined) return [`The poll failed with ${plain(record.e)}.`, "poll"];
        if (record.timeout === 0) {
            return [`The loop did not sleep: work was left over, or the program that drives it asked for no wait. The kernel reports ${count(events, "event")}.`, "busy"];
        }
        if (events === 0) return ["The timeout has passed without an event: a deadline is due.", "poll"];
        return [`The kernel reports ${count(events, "event")}. The loop reads the clock once, for the whole turn.`, "poll"];
    }

    function describeEvent(record) {
        if (record.src === "waker") {
            return ["The waker has ended the poll: another thread has posted a command.", "waker"];
        }
        if (record.src === "listener") {
            return [`A client waits at listener ${record.l ?? "?"}. The loop only notes it now, and accepts in a later phase of this turn.`, "note_readiness"];
        }
        const may = record.r && record.w ? "A read and a write" : record.w ? "A write" : "A read";
        const special = record.special ?
            " The event may report more than data: a closed half, an error or an urgent byte. From now on a short read does not prove that the stream is empty." : "";
        return [`${may} on ${named(record)} may succeed. This is a hint: only the call itself shows whether it holds.${special}`,
            record.special ? "hint" : "event"];
    }

    function describeAccept(record) {
        if (isBlocked(record)) {
            return [`No client waits at listener ${record.l ?? "?"}. The loop clears its ready bit and waits for the next event.`, "drained"];
        }
        if (record.e !== undefined) {
            const why = ERRORS[record.e];
            return [`Accepting failed with ${plain(record.e)}${why ? `: ${why}` : ""}. Clients wait in the backlog; the loop tries again after a pause, or once a connection closes.`, "exhausted"];
        }
        const from = record.peer ? ` from ${plain(record.peer)}` : "";
        return [`The loop accepts ${named(record)}${from}. It assumes that the connection is readable and writable; a wrong guess costs one WouldBlock.`, "accept"];
    }

    function describeRead(record, connection) {
        const subject = named(record);
        if (isBlocked(record)) {
            return [`Nothing is left to read on ${subject}: WouldBlock. The loop clears the readable bit; only now does the kernel promise another event.`, "read_blocked"];
        }
        if (RESETS.has(record.e)) {
            return [`The peer has reset ${subject}. The kernel has dropped what was queued in both directions, so the connection closes at once.`, "read_failed"];
        }
        if (record.e === "EINTR") return [`A signal interrupted the read on ${subject}; the loop reads again.`, "read_blocked"];
        if (record.e !== undefined) return [`The read on ${subject} failed with ${plain(record.e)}: the connection closes.`, "read_failed"];
        if (record.n === 0) {
            const unsent = connection?.unsent ?? 0;
            const rest = unsent > 0 ? `The other half stays open. ${bytes(unsent)} ${unsent === 1 ? "is" : "are"} unsent: a peer that has only ended its half still receives them, one that has closed its socket answers with a reset.` :
                "The other half stays open, so everything that is queued is still sent.";
            return [`The peer has ended its half of ${subject}: zero bytes mean EOF. ${rest}`, "eof"];
        }
        if (connection?.closed) {
            return [`The protocol of ${subject} has closed, so these ${bytes(record.n ?? 0)} are discarded. If they stayed unread, closing would reset the connection and could destroy the answer.`, "discard"];
        }
        if ((record.n ?? 0) < (record.len ?? 0)) {
            return [`${bytes(record.n ?? 0)} arrived on ${subject}, less than there was room for. If every event so far was plain, the stream is empty, and the loop saves the read that would return WouldBlock.`, "short_read"];
        }
        return [`The read on ${subject} filled all ${bytes(record.n ?? 0)} of its room. More may be waiting, so the connection stays readable.`, "full_read"];
    }

    // A fault in force may have caused the result of a write.
    function byFault(connection) {
        const faults = connection?.faults ?? [];
        if (faults.length === 0) return "";
        return ` The fault ${faults.map((fault) => plain(fault)).join("; ")} is in force, so this may be its work and not the kernel's.`;
    }

    function describeWrite(record, connection) {
        const subject = named(record);
        const offered = bytes(record.len ?? 0);
        if (isBlocked(record)) {
            return [`The kernel's send buffer for ${subject} is full: WouldBlock. ${offered} stay in the send queue, and the loop writes again after the next writable event.${byFault(connection)}`, "write_blocked"];
        }
        if (RESETS.has(record.e)) {
            return [`The peer has reset ${subject}, after ${bytes(connection?.bout ?? 0)}: the ${offered} that are queued cannot be sent any more, and the connection closes.`, "write_failed"];
        }
        if (record.e === "EINTR") return [`A signal interrupted the write on ${subject}; the loop writes again.`, "write_blocked"];
        if (record.e !== undefined) return [`The write on ${subject} failed with ${plain(record.e)}: the connection closes.`, "write_failed"];
        if (isShort(record)) {
            return [`A short write: the kernel took ${bytes(record.n)} of ${offered} for ${subject}. The other ${bytes(record.len - record.n)} stay in the send queue, and the cursor moves.${byFault(connection)}`, "short_write"];
        }
        const last = record.f === "write_last" ? " They are the last, so they share a segment with the FIN that follows." : "";
        return [`The kernel took all ${bytes(record.n ?? 0)} for ${subject}. That does not mean that the peer has read them.${last}`, "write"];
    }

    const PLACE_OF_CALL = {
        shutdown: "shutdown", reset: "reset", close: "reap", register: "register", rearm: "drained",
        listen: "listen", connect: "register",
    };

    function describeOther(record, connection) {
        const subject = named(record);
        if (record.e !== undefined && record.f !== "connected") {
            const why = ERRORS[record.e];
            return [`The call ${plain(record.f ?? "", 20)} for ${subject} failed with ${plain(record.e)}${why ? `: ${why}` : ""}.`, PLACE_OF_CALL[record.f] ?? null];
        }
        switch (record.f) {
            case "shutdown": return [`The loop ends its half of ${subject}: the peer reads EOF after the last byte. The peer may still send.`, "shutdown"];
            case "reset": return [`The loop resets ${subject}: the peer's next call fails, and unsent bytes are dropped.`, "reset"];
            case "close": return [`The loop closes the descriptor of ${subject}; the kernel frees it for the next connection.`, "reap"];
            case "register": return [`The kernel watches ${subject} from now on. This is done once, after the first run: the events are edge-triggered, and interest is never changed.`, "register"];
            case "rearm": return [`The loop asks for the next event of listener ${record.l ?? "?"}. That is cheaper than an accept that finds no client.`, "drained"];
            case "listen": return [`The kernel queues clients for ${plain(record.addr ?? `listener ${record.l ?? "?"}`)}, even before the loop accepts them.`, "listen"];
            case "connect": return [`The loop begins to connect ${subject}${record.peer ? ` to ${plain(record.peer)}` : ""}${record.parent === undefined ? ". The" : ` for #${record.parent}: both are sides of one conversation. The`} first writable event will show the result.`, "register"];
            case "connected":
                if (record.e !== undefined) return [`${subject} could not connect: ${ERRORS[record.e] ?? plain(record.e)}.`, "event"];
                if (record.n !== 1) return [`The kernel has no result for ${subject} yet; the loop waits for the next writable event.`, "event"];
                return [`${subject} is connected. From now on it is a conversation like an accepted one.`, "accept"];
            default: return [`The loop calls ${plain(record.f ?? "the kernel")} for ${subject}.`, connection ? "run_queue" : "turn"];
        }
    }

    function describeState(record, limits, connection) {
        const subject = named(record), unsent = record.unsent ?? 0;
        if (connection?.failed) return [`${subject} has failed, so its run ends here. It keeps its slot until the end of the turn, so that no event of this turn can reach another connection.`, "reap"];
        if (record.in === "ended" && record.out === "shut") {
            return [`Both halves of ${subject} have ended and nothing is unsent: it has finished.`, "finished"];
        }
        if (record.congested && unsent <= (limits.low_water ?? 0)) {
            return [`The send queue of ${subject} has drained to ${bytes(unsent)}, at or below low water: the protocol may go on.`, "drain"];
        }
        if (record.congested) {
            return [`${subject} has ${bytes(unsent)} unsent: back-pressure. The loop does not read from this peer until the queue has drained to ${bytes(limits.low_water ?? 0)}.`, "congested"];
        }
        if (record.paused) return [`The protocol of ${subject} has paused reading; bytes wait in the kernel.`, "full_read"];
        if ((record.r && record.wr) || (record.w && record.ww)) {
            return [`The budget of ${subject} is spent before its work is done. It waits as a leftover, so that the other connections run first.`, "run_queue"];
        }
        if (unsent > 0) return [`${subject} has ${bytes(unsent)} unsent, and waits for the kernel to report it writable.`, "queue"];
        if (record.out === "shut") return [`${subject} has sent everything and its FIN. It waits for the peer to end the other half.`, "shutdown"];
        if (record.closed) return [`The protocol of ${subject} has closed; the rest is being sent.`, "discard"];
        return [`${subject} has done all that can be done without blocking. It waits for the next event.`, "idle"];
    }

    function effect({ fault = "" }) {
        const word = fault.slice(fault.indexOf(": ") + 2).split(" ")[0];
        return Object.hasOwn(EFFECTS, word) ? `${EFFECTS[word]} ` : "";
    }

    function describeEnd(record, connection) {
        const unsent = connection?.unsent ?? 0;
        const rest = unsent > 0 ? ` ${bytes(unsent)} ${unsent === 1 ? "was" : "were"} never sent.` : "";
        const sums = `${bytes(record.bin ?? 0)} came in, ${bytes(record.bout ?? 0)} went out.${rest}`;
        const reason = plain(record.reason ?? "unknown");
        if (isOrderly(record.reason)) return [`${named(record)} has finished: both halves ended in order. ${sums}`, "reap"];
        return [`${named(record)} has ended early: ${reason}. ${sums}`, "reap"];
    }

    // Returns one sentence or two about a record, and the key of its place in `PLACES`.
    function sentence(record, state, limits) {
        const connection = state.connections.get(record.c);
        switch (record.k) {
            case "turn": return [`Turn ${number.format(record.n ?? 0)} begins. Its seven phases always have this order.`, "turn"];
            case "phase": return [PHASE_TEXTS[record.p] ?? `The phase ${plain(record.p ?? "?")} begins.`,
                record.p === "accept" ? "turn" : PHASE_TEXTS[record.p] ? record.p : "turn"];
            case "poll": return describePoll(record);
            case "event": return describeEvent(record);
            case "call":
                if (isByFault(record)) return [`${named(record)} is ${plain(record.e)}. The test has asked for it; the loop treats it like any error of the kernel.`, "read_failed"];
                if (record.f === "accept") return describeAccept(record);
                if (record.f === "read") return describeRead(record, connection);
                return isWrite(record) ? describeWrite(record, connection) : describeOther(record, connection);
            case "state": return describeState(record, limits, connection);
            case "fault": return [`A fault begins to act on ${named(record)}: ${plain(record.fault ?? "unknown")}. ${effect(record)}The test has asked for it; the loop itself sees only what the calls return.`, null];
            case "heal": return [`A fault on ${named(record)} has ended: ${plain(record.fault ?? "unknown")}. From here on the kernel's own results count again.`, null];
            case "end": return describeEnd(record, connection);
            default: return [`${count(record.records ?? 0, "record")} ${record.records === 1 ? "is" : "are"} missing here, with ${count(record.calls ?? 0, "call")}, because the recorder could not keep up. ${bytes(record.bin ?? 0)} came in and ${bytes(record.bout ?? 0)} went out meanwhile; the state is exact again once each connection has run.`, null];
        }
    }

    function describe(record, state, limits) {
        const [text, key] = sentence(record, state, limits);
        const place = PLACES[key];
        return {
            title: title(record), text,
            place: place && { file: place[0], name: place[1], anchor: place[2], line: place[3] },
        };
    }

    const GROUPS = {
        gap: ["Gaps", "Records that the recorder dropped."],
        reset: ["Resets", "One side ended the connection at once; unread bytes are lost."],
        failed: ["Errors and early ends", "Calls that failed, and connections that did not finish."],
        fault: ["Faults", "The test server has applied them on purpose."],
        short: ["Short writes", "The kernel took only a part; the rest is kept and sent later."],
        blocked: ["WouldBlock", "A read found no byte, or a write found no room."],
        unsent: ["Most unsent bytes", "The fullest moment of each send queue."],
        turn: ["Longest turns", "Other connections wait while a turn lasts."],
    };

    // The text of a moment in the list of findings.
    function moment(kind, item) {
        const subject = item.c !== undefined ? `#${item.c}` : item.l !== undefined ? `listener ${item.l}` : "";
        switch (kind) {
            case "gap": return ["", count(item.weight, "record")];
            case "short": return [subject, `${bytes(item.weight)} left`];
            case "blocked": return [subject, item.weight > 0 ? `${bytes(item.weight)} refused` : plain(item.text ?? "", 40)];
            case "unsent": return [subject, bytes(item.weight)];
            case "turn": return [`turn ${number.format(item.n)}`, time(item.weight)];
            default: return [subject, plain(item.text ?? "", 80)];
        }
    }

    return { PLACES, GROUPS, PHASE_TEXTS, describe, title, moment, number, count, bytes, time, size, plain, payload };
})();

if (typeof module === "object") module.exports = Words;
