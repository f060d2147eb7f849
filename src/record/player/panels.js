"use strict";
// The panels of a step: its record, the phases, the selected connection, and the loop. Every text from
// the recording is set as text, never as markup.

const Panels = (() => {
    const { number, count, bytes, time, size, plain } = Words;
    const { PHASES } = State;
    const { CLASS } = Decoder;
    const SHOWN_CHIPS = 12;
    const get = (id) => document.getElementById(id);

    function make(tag, properties = {}, ...children) {
        const { attributes = {}, ...rest } = properties;
        const element = Object.assign(document.createElement(tag), rest);
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        element.append(...children.filter((child) => child !== null && child !== ""));
        return element;
    }

    const put = (id, ...children) => get(id).replaceChildren(...children.filter((child) => child !== null && child !== ""));
    const say = (id, text) => {
        if (get(id).textContent !== text) get(id).textContent = text;
    };

    const TONES = {
        [CLASS.read]: "read", [CLASS.write]: "write", [CLASS.short]: "warn", [CLASS.blocked]: "warn",
        [CLASS.failed]: "bad", [CLASS.gap]: "bad", [CLASS.fault]: "fault",
    };

    function showNow(now, record) {
        const { recording, state, step } = now;
        const { title, text, place } = Words.describe(record, state, recording.header);
        say("where", `Step ${number.format(step)} of ${number.format(recording.length)} · turn ${number.format(state.turn)} · ${time(state.t)}`);
        say("title", title);
        get("title").className = `call ${TONES[recording.classes[step - 1]] ?? ""}`;
        get("sentence").setAttribute("aria-live", now.playing ? "off" : "polite");
        say("sentence", text);
        if (place) {
            put("place", make("b", { textContent: place.name }), ` in ${place.file}, anchor `,
                make("b", { textContent: place.anchor }), make("code", { textContent: place.line }));
        } else put("place", "No place in the core: this record is not the loop's.");
    }

    function showPhases(now) {
        const at = PHASES.indexOf(now.state.phase);
        const list = get("phases");
        if (list.children.length === 0) {
            list.append(...PHASES.map((phase) => make("li", { textContent: phase.replaceAll("_", " "), title: Words.PHASE_TEXTS[phase] })));
        }
        [...list.children].forEach((item, index) => {
            item.className = index < at ? "past" : "";
            if (index === at) item.setAttribute("aria-current", "step");
            else item.removeAttribute("aria-current");
        });
    }

    const due = (deadline, t) => (deadline > t ? `in ${time(deadline - t)}` : "due");

    // Why a direction works or waits: the kernel's bit and our interest.
    function readVerdict(c) {
        if (c.failed) return ["failed", "bad"];
        if (c.in === "ended") return ["ended: EOF was read", ""];
        if (c.wr && c.r) return ["reads", ""];
        if (c.wr) return ["waits for an event", ""];
        if (c.paused) return ["paused by the protocol", "warn"];
        if (c.congested) return ["back-pressure", "warn"];
        return ["does not read", "warn"];
    }

    function writeVerdict(c) {
        if (c.failed) return ["failed", "bad"];
        if (c.out === "shut") return ["ended: FIN was sent", ""];
        if (c.unsent === 0 && c.ww && !c.connecting) return ["ends its half", ""];
        if (c.unsent > 0 || c.ww) return c.w ? ["writes", ""] : ["waits for room in the kernel", "warn"];
        return ["nothing to send", ""];
    }

    const bit = (on, text) => make("span", { className: on ? "bit on" : "bit", textContent: text });

    function ioRow(name, ready, wants, [verdict, tone]) {
        return make("tr", {}, make("th", { scope: "row", textContent: name }),
            make("td", {}, ready), make("td", {}, wants),
            make("td", { className: `so ${tone}`, textContent: verdict }));
    }

    function ioTable(c) {
        const head = (text) => make("th", { scope: "col", textContent: text });
        const body = make("tbody", {},
            ioRow("read", bit(c.r, c.r ? "ready" : "not ready"), bit(c.wr, c.wr ? "wants bytes" : "no interest"), readVerdict(c)),
            ioRow("write", bit(c.w, c.w ? "ready" : "not ready"), bit(c.ww || c.unsent > 0, c.unsent > 0 ? "has bytes" : c.connecting ? "connects" : c.ww ? "has a FIN" : "no interest"), writeVerdict(c)));
        return make("table", { className: "io" }, make("colgroup", {}, ...["name", "kernel", "ours", "result"].map((name) => make("col", { className: name }))),
            make("thead", {}, make("tr", {}, head("Call"), head("Kernel"), head("Our side"), head("So the loop"))), body);
    }

    function gauge(c, recording) {
        const { high_water: high = 65536, low_water: low = 16384 } = recording.header;
        const most = Math.max(high * 1.25, recording.lives.get(c.id)?.most ?? 0);
        const fill = make("div", { className: "fill" });
        const ticks = [low, high].map(() => make("div", { className: "tick" }));
        fill.style.width = `${Math.min(100, c.unsent / most * 100)}%`;
        [low, high].forEach((mark, at) => { ticks[at].style.left = `${mark / most * 100}%`; });
        return make("div", { className: "queue" },
            make("p", {}, make("span", { textContent: `Send queue: ${bytes(c.unsent)}${c.congested ? ", congested" : ""}` }),
                make("span", { className: "quiet", textContent: `low water ${size(low)}, high water ${size(high)}` })),
            make("div", { className: "gauge", attributes: { role: "img", "aria-label": `${bytes(c.unsent)} of ${bytes(high)} up to high water` } }, fill, ...ticks));
    }

    const fact = (name, ...values) => make("div", {}, make("dt", { textContent: name }), make("dd", {}, ...values));

    function halves(c) {
        const inward = c.connecting ? "not connected yet" : c.in === "ended" ? "peer has ended" : "open";
        const outward = { open: "open", flushing: "flushing, then FIN", shut: "FIN sent" }[c.out] ?? plain(c.out, 20);
        return `in: ${inward} · out: ${outward}${c.closed ? " · protocol has closed" : ""}`;
    }

    function showConnection(now) {
        const { chosen: id, state } = now;
        const c = state.connections.get(id);
        get("pin").checked = now.pinned;
        if (id === null || !c) {
            const life = now.recording.lives.get(id);
            say("connection-title", id === null ? "No connection yet" : `Connection #${id}`);
            say("names", "");
            put("connection", make("p", { className: "quiet", textContent: life === undefined ? "" :
                now.step < life.first ? "It has not begun yet." : "It has ended." }));
            return;
        }
        // The other side of a proxied conversation.
        const others = [...state.connections.values()]
            .filter((other) => (c.parent === null ? other.parent === id : other.id === c.parent)).map((other) => [other.id]);
        say("connection-title", `Connection #${id}`);
        say("names", [c.service, c.peer].filter(Boolean).map((text) => plain(text, 60)).join(" · "));
        put("connection", ioTable(c), gauge(c, now.recording), make("dl", { className: "facts" },
            fact("halves", halves(c)),
            fact("so far", `${number.format(c.bin)} bytes in, ${number.format(c.bout)} out`,
                make("span", { className: "quiet", textContent: c.deadline === null ? "no deadline" : `deadline ${due(c.deadline, state.t)}` })),
            others.length > 0 ? fact(c.parent === null ? "server side" : "client side", ...chips(others, "", id)) : null,
            c.faults.length > 0 ? fact("fault", make("span", { className: "fault-text", textContent: c.faults.map((fault) => plain(fault)).join("; ") })) : null,
            c.reason !== null ? fact("ended", make("span", { className: Decoder.isOrderly(c.reason) ? "" : "bad-text", textContent: plain(c.reason) || "reason unknown" })) : null));
    }

    // A click on a chip chooses its connection.
    function chip(id, text, chosen) {
        const button = make("button", {
            type: "button", className: "chip", textContent: `#${id}${text}`,
            attributes: { "aria-pressed": String(id === chosen), "aria-label": `Connection ${id}${text}` },
        });
        button.dataset.connection = String(id);
        return button;
    }

    function chips(items, none, chosen) {
        if (items.length === 0) return none ? [make("span", { className: "quiet", textContent: none })] : [];
        const shown = items.slice(0, SHOWN_CHIPS).map((item) => (item instanceof Node ? item : chip(item[0], item[1] ?? "", chosen)));
        const rest = items.length - shown.length;
        return rest > 0 ? [...shown, make("span", { className: "quiet", textContent: `and ${rest} more` })] : shown;
    }

    // The events of this turn so far.
    function turnEvents({ recording: { records }, state, step }) {
        const items = [];
        for (let at = state.turnStep; at < step && items.length <= 200; at++) {
            const { k, src, c, l, r, w, special } = records[at];
            if (k !== "event") continue;
            const bits = `${r ? " R" : ""}${w ? " W" : ""}${special ? " !" : ""}`;
            if (src === "connection" && c !== undefined) items.push([c, bits]);
            else items.push(make("span", { className: "chip", textContent: src === "waker" ? "waker" : `listener ${l ?? "?"}` }));
        }
        return items;
    }

    function listenerText({ id, service, ready, paused, accepted, faults }) {
        const state = paused !== null ? `failed with ${plain(paused, 40)}` : ready ? "ready" : "waits";
        const fault = faults.length > 0 ? `, fault: ${faults.map((text) => plain(text)).join("; ")}` : "";
        return make("span", {
            className: paused !== null ? "bad-text" : faults.length > 0 ? "fault-text" : "",
            textContent: `${plain(service, 20) || `listener ${id}`}: ${state}, ${number.format(accepted)} accepted${fault}`,
        });
    }

    function showLoop(now) {
        const { chosen, state, state: { connections, listeners, poll, totals } } = now;
        const all = [...connections.values()];
        const timers = all.filter(({ deadline }) => deadline !== null).sort((a, b) => a.deadline - b.deadline);
        const queued = (kind) => all.filter((c) => c.queued === kind).map((c) => [c.id]);
        const polled = state.asleep ? "asleep" : poll === null ? "…" : `${count(poll.events ?? 0, "event")}, timeout ${poll.timeout === undefined ? "none" : time(poll.timeout)}`;
        put("loop",
            fact("poll", make("span", { textContent: polled }), ...chips(turnEvents(now), "", chosen)),
            fact("run queue", ...chips(queued("fresh"), "empty", chosen)),
            fact("leftovers", ...chips(queued("leftover"), "none", chosen)),
            fact("timers", ...chips(timers.slice(0, 3).map((c) => [c.id, ` ${due(c.deadline, state.t)}`]), "none", chosen)),
            fact("listeners", ...(listeners.size === 0 ? chips([], "unknown") : [...listeners.values()].slice(0, 6).map(listenerText))),
            fact("so far", `${count(totals.reads, "read")}, ${count(totals.writes, "write")}, ${number.format(totals.short)} short, ${number.format(totals.blocked)} WouldBlock`));
    }

    return { get, make, put, say, showNow, showPhases, showConnection, showLoop };
})();
