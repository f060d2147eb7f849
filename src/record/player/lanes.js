"use strict";
// The canvases: a lane per connection, of which only the visible part is drawn, and the map of the
// whole run. One column is one step, so time asleep takes no width.

const Lanes = (() => {
    const { CLASS, above } = Decoder;
    const LOOP = 44;
    // The heights of a lane; a tall one shows the send queue better.
    const HEIGHTS = [64, 44, 28];
    // The phases where there is little room.
    const SHORT = {
        note_readiness: "note", obey_commands: "obey", fire_timers: "timers", run_connections: "run",
    };
    const WIDTHS = [4, 7, 10, 14, 20, 28];

    // The colours of the style sheet, read again when the scheme changes.
    function palette() {
        const style = getComputedStyle(document.documentElement);
        const names = ["card", "ink", "quiet", "line", "soft", "accent", "accent-soft", "event", "read",
            "write", "queue", "warn-mark", "bad", "fault"];
        return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    }

    // Fits the bitmap to the element, and returns a context in CSS pixels.
    function prepare(canvas) {
        const [ratio, width, height] = [devicePixelRatio || 1, canvas.clientWidth, canvas.clientHeight];
        const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
        if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
        const context = canvas.getContext("2d");
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.clearRect(0, 0, width, height);
        return { context, width, height };
    }

    const disc = (c, x, y, radius) => {
        c.beginPath();
        c.arc(x, y, radius, 0, 2 * Math.PI);
    };

    // Each class has a shape of its own, so that colour is not the only difference.
    const MARKS = {
        [CLASS.event](c, x, y, r, colours) {
            c.fillStyle = colours.event;
            c.beginPath();
            c.moveTo(x - r, y - r * 0.7);
            c.lineTo(x + r, y - r * 0.7);
            c.lineTo(x, y + r);
            c.fill();
        },
        [CLASS.read](c, x, y, r, colours) {
            c.fillStyle = colours.read;
            disc(c, x, y, r);
            c.fill();
        },
        [CLASS.write](c, x, y, r, colours) {
            c.fillStyle = colours.write;
            c.fillRect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
        },
        [CLASS.call](c, x, y, r, colours) {
            c.fillStyle = colours.quiet;
            c.fillRect(x - 1, y - r, 2, 2 * r);
        },
        [CLASS.blocked](c, x, y, r, colours) {
            [c.strokeStyle, c.lineWidth] = [colours["warn-mark"], 1.75];
            disc(c, x, y, r - 0.5);
            c.stroke();
        },
        [CLASS.short](c, x, y, r, colours) {
            [c.fillStyle, c.strokeStyle, c.lineWidth] = [colours["warn-mark"], colours["warn-mark"], 1.5];
            c.strokeRect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
            c.fillRect(x - r * 0.9, y, r * 1.8, r * 0.9);
        },
        [CLASS.fault](c, x, y, r, colours) {
            c.fillStyle = colours.fault;
            c.beginPath();
            c.moveTo(x, y - r * 1.2);
            c.lineTo(x + r * 1.2, y);
            c.lineTo(x, y + r * 1.2);
            c.lineTo(x - r * 1.2, y);
            c.fill();
        },
        [CLASS.failed](c, x, y, r, colours) {
            [c.strokeStyle, c.lineWidth] = [colours.bad, 2];
            c.beginPath();
            c.moveTo(x - r, y - r);
            c.lineTo(x + r, y + r);
            c.moveTo(x + r, y - r);
            c.lineTo(x - r, y + r);
            c.stroke();
        },
    };

    const LEGEND = [
        [CLASS.event, "event"], [CLASS.read, "read"], [CLASS.write, "write"], [CLASS.short, "short write"],
        [CLASS.blocked, "WouldBlock"], [CLASS.failed, "error"], [CLASS.fault, "fault"],
        [CLASS.call, "other"],
    ];

    class View {
        constructor(canvas, map) {
            Object.assign(this, { canvas, map, zoom: 3, left: 0, top: 0, height: 28, rows: [], shown: [] });
            this.colours = palette();
        }

        open(recording) {
            this.recording = recording;
            this.lives = recording.grouped();
            [this.left, this.top, this.buckets] = [0, 0, null];
        }

        recolour() {
            this.colours = palette();
            this.buckets = null;
        }

        get column() {
            return WIDTHS[this.zoom];
        }

        setZoom(by) {
            this.zoom = Math.max(0, Math.min(WIDTHS.length - 1, this.zoom + by));
        }

        // Moves the view so that a step is well inside it.
        reveal(step) {
            const visible = this.canvas.clientWidth / this.column;
            const at = step - this.left;
            if (at < visible * 0.15 || at > visible * 0.85) this.left = step - visible / 2;
            this.left = Math.max(0, Math.min(this.left, this.recording.length + 2 - visible));
            if (this.recording.length < visible) this.left = 0;
        }

        // Chooses the connections that have a lane now. `chosen` is always among them.
        arrange(chosen) {
            const [first, last] = this.range();
            this.rows = this.lives.filter((life) => life.first <= last && (!life.ended || life.last >= first));
            const space = this.canvas.clientHeight - LOOP;
            this.height = HEIGHTS.find((height) => height * this.rows.length <= space) ?? HEIGHTS.at(-1);
            const room = Math.max(1, Math.floor(space / this.height));
            const at = this.rows.findIndex((life) => life.id === chosen);
            if (at >= 0 && this.chosen !== chosen) {
                if (at < this.top) this.top = at;
                if (at >= this.top + room) this.top = at - room + 1;
            }
            this.chosen = chosen;
            this.top = Math.max(0, Math.min(this.top, this.rows.length - room));
            this.shown = this.rows.slice(this.top, this.top + room);
        }

        range() {
            const first = Math.max(1, Math.floor(this.left));
            return [first, Math.min(this.recording.length, Math.ceil(this.left + this.canvas.clientWidth / this.column))];
        }

        x(step) {
            return (step - this.left) * this.column;
        }

        rowTop(row) {
            return LOOP + row * this.height;
        }

        // Returns the step and the connection at a point of the canvas.
        pick(x, y) {
            const step = Math.round(this.left + x / this.column);
            const life = this.shown[Math.floor((y - LOOP) / this.height)];
            return { step: Math.max(1, Math.min(step, this.recording.length)), id: y < LOOP ? null : life?.id ?? null };
        }

        draw(step, chosen) {
            this.reveal(step);
            this.arrange(chosen);
            const { context: c, width, height } = prepare(this.canvas);
            const [first, last] = this.range();
            c.fillStyle = this.colours["accent-soft"];
            const band = Math.max(this.column, 6);
            c.fillRect(this.x(step) - band / 2, 0, band, height);
            const at = this.shown.findIndex((life) => life.id === chosen);
            if (at >= 0) {
                c.globalAlpha = 0.55;
                c.fillRect(0, this.rowTop(at), width, this.height);
                c.globalAlpha = 1;
            }
            this.drawLoop(c, first, last, width, height);
            this.shown.forEach((life, row) => this.drawLife(c, life, this.rowTop(row), first, last, width));
            for (const { from, to } of this.recording.listenerFaults) this.drawFault(c, from, to, LOOP - 5, width);
            this.drawMarks(c, first, last);
            c.fillStyle = this.colours.accent;
            c.fillRect(Math.round(this.x(step)) - 1, 0, 2, 5);
        }

        // The row of the loop: where turns begin, how long each slept, and its phases.
        drawLoop(c, first, last, width, height) {
            const { records, steps: { turn } } = this.recording;
            c.font = `11px ${getComputedStyle(document.body).fontFamily}`;
            c.textBaseline = "middle";
            let free = -1;
            for (let at = Math.max(0, above(turn, first) - 1); at < turn.length && turn[at] <= last; at++) {
                const x = Math.round(this.x(turn[at]) - this.column / 2) + 0.5;
                c.fillStyle = this.colours.line;
                c.fillRect(x, 0, 1, height);
                const end = at + 1 < turn.length ? this.x(turn[at + 1]) - this.column / 2 : width;
                const text = this.turnText(turn[at], at);
                const from = Math.max(x, 0) + 5;
                if (from > free && from + c.measureText(text).width < Math.min(end, width)) {
                    c.fillStyle = this.colours.quiet;
                    c.fillText(text, from, 11);
                    free = from + c.measureText(text).width;
                }
            }
            for (let step = this.phaseBefore(first); step <= last; step++) {
                const record = records[step - 1];
                if (record.k !== "phase") continue;
                let end = step + 1;
                while (end <= last && records[end - 1].k !== "phase" && records[end - 1].k !== "turn") end += 1;
                const [x, to] = [this.x(step) - this.column / 2 + 1, this.x(end) - this.column / 2 - 1];
                c.fillStyle = record.p === "sleep" ? this.colours.line : this.colours.soft;
                c.fillRect(x, 22, to - x, 16);
                const name = String(record.p ?? "").replaceAll("_", " ").slice(0, 20);
                const from = Math.max(x, 0);
                const fits = (text) => c.measureText(text).width + 6 < Math.min(to, width) - from;
                const text = [name, SHORT[record.p] ?? name].find(fits);
                c.fillStyle = this.colours.quiet;
                if (text) c.fillText(text, from + 3, 30.5);
                step = end - 1;
            }
        }

        phaseBefore(first) {
            let step = first;
            while (step > 1 && first - step < 20_000 && this.recording.records[step - 1].k !== "phase") step -= 1;
            return step;
        }

        turnText(step, at) {
            const { records } = this.recording;
            const poll = records[step + 1]?.k === "poll" ? records[step + 1] : null;
            const slept = poll ? poll.t - records[step].t : 0;
            const name = `turn ${records[step - 1].n ?? at + 1}`;
            return slept >= 1000 ? `${name}, after ${Words.time(slept)} asleep` : name;
        }

        // The line of a life, and its unsent bytes as an area.
        drawLife(c, life, top, first, last, width) {
            const x = Math.max(this.x(life.first), 0);
            const end = Math.min(life.ended ? this.x(life.last) : this.x(this.recording.length), width);
            const base = top + this.height - 4;
            const scale = (this.height - 8) / Math.max(life.most, this.recording.header.high_water || 65536);
            c.fillStyle = this.colours.queue;
            for (let at = Math.max(0, above(life.at, first) - 1); at < life.at.length && life.at[at] <= last; at++) {
                if (life.unsent[at] === 0) continue;
                const [from, to] = [Math.max(this.x(life.at[at]), 0), Math.min(at + 1 < life.at.length ? this.x(life.at[at + 1]) : end, end)];
                const high = Math.max(1.5, life.unsent[at] * scale);
                c.fillRect(from, base - high, Math.max(0, to - from), high);
            }
            c.fillStyle = this.colours.line;
            c.fillRect(x, base, Math.max(0, end - x), 1.5);
            for (const { from, to } of life.faults) this.drawFault(c, from, to, top + 1, width);
        }

        // A bar from the begin of a fault to its end.
        drawFault(c, from, to, top, width) {
            const [x, end] = [Math.max(this.x(from), 0), Math.min(this.x(to), width)];
            c.fillStyle = this.colours.fault;
            if (end > x) c.fillRect(x, top, end - x, 3);
        }

        drawMarks(c, first, last) {
            const rows = new Map(this.shown.map((life, row) => [life.id, row]));
            const radius = Math.min(4.5, Math.max(2, this.column * 0.36));
            const { records, classes } = this.recording;
            for (let step = first; step <= last; step++) {
                const kind = classes[step - 1], record = records[step - 1];
                if (kind === CLASS.gap) {
                    c.fillStyle = this.colours.bad;
                    c.fillRect(this.x(step) - 1.5, 0, 3, this.canvas.clientHeight);
                }
                if (kind === CLASS.fault && record.c === undefined) {
                    MARKS[kind](c, this.x(step), LOOP - 4, 4, this.colours);
                }
                const row = record.c === undefined ? undefined : rows.get(record.c);
                if (row === undefined) continue;
                const [x, y] = [this.x(step), this.rowTop(row) + 13];
                // On the area of unsent bytes a mark needs a ground of its own.
                const { at, unsent } = this.shown[row];
                if (MARKS[kind] && unsent[above(at, step) - 1] > 0) {
                    c.fillStyle = this.colours.card;
                    disc(c, x, y, radius + 2.5);
                    c.fill();
                }
                MARKS[kind]?.(c, x, y, radius, this.colours);
            }
        }

        // The map: how much happens where, and where trouble is.
        drawMap(step) {
            const { context: c, width, height } = prepare(this.map);
            const inset = 6, wide = width - 2 * inset, count = this.recording.length;
            if (wide < 1) return;
            if (this.buckets?.length !== Math.ceil(wide)) this.buckets = this.summarize(Math.ceil(wide));
            const most = Math.max(1, ...this.buckets.map((bucket) => bucket.calls));
            const middle = height - 11, thick = Math.max(1, Math.min(6, wide / count - 1));
            c.fillStyle = this.colours.soft;
            c.fillRect(inset, 0, wide, height);
            const visible = this.canvas.clientWidth / this.column;
            const left = inset + this.left / count * wide;
            c.fillStyle = this.colours["accent-soft"];
            c.fillRect(left, 0, Math.max(3, visible / count * wide), height);
            this.buckets.forEach(({ calls, read, warn, fault, bad }, at) => {
                const high = calls === 0 ? 0 : Math.max(1, Math.sqrt(calls / most) * (middle - 4));
                c.fillStyle = this.colours.event;
                c.globalAlpha = 0.6;
                c.fillRect(inset + at, middle - high, thick, high);
                c.globalAlpha = 1;
                const colour = bad ? "bad" : fault ? "fault" : warn ? "warn-mark" : null;
                if (colour) {
                    c.fillStyle = this.colours[colour];
                    c.fillRect(inset + at, middle + 3, Math.max(thick, bad || fault ? 2 : 1), bad || fault ? 7 : 4);
                }
            });
        }

        summarize(width) {
            const buckets = Array.from({ length: width }, () => ({ calls: 0, warn: 0, fault: 0, bad: 0 }));
            const { classes, records } = this.recording;
            for (let at = 0; at < classes.length; at++) {
                const bucket = buckets[Math.floor(at / classes.length * width)];
                const kind = classes[at];
                if (kind >= CLASS.read && kind <= CLASS.short) bucket.calls += 1;
                // Reads that find nothing are the rule; a refused write is worth a mark.
                if (kind === CLASS.short || (kind === CLASS.blocked && records[at].f !== "read")) bucket.warn += 1;
                if (kind === CLASS.fault) bucket.fault += 1;
                if (kind >= CLASS.failed) bucket.bad += 1;
            }
            return buckets;
        }

        // Draws the mark of a class on a small canvas, for the legend.
        drawMark(canvas, kind) {
            const { context } = prepare(canvas);
            MARKS[kind](context, 8, 8, 4.5, this.colours);
        }
    }

    return { View, LEGEND };
})();
