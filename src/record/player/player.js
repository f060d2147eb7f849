"use strict";
// The page: shows the state at one step, and moves from step to step. Every text from the recording
// is set as text, never as markup.

(() => {
    const { get, make, put, say } = Panels;
    const { number, count, time, size, plain } = Words;
    const SHOWN_FIRST = 3;
    // Playing shortens every wait to this many seconds on the screen.
    const FOLD = 0.5;

    const sources = [...document.querySelectorAll("script#recording, script.recording")];
    const view = new Lanes.View(get("canvas"), get("map"));
    const now = { recording: null, story: 0, step: 1, chosen: null, pinned: false, unit: "call", playing: false };

    const isNarrow = () => matchMedia("(max-width: 760px)").matches;

    // Opening a recording, and the address of a step.

    async function open(story) {
        now.story = story;
        const source = sources[story];
        const started = performance.now();
        try {
            now.recording = Decoder.open(await Decoder.unpack(source.textContent));
        } catch (error) {
            fail(`Cannot open the recording: ${error.message || "it is damaged"}. Render the page again with \`campanile play\`.`);
            return;
        }
        const { recording } = now;
        [now.chosen, now.pinned] = [null, false];
        view.open(recording);
        showSummary();
        showStory(source);
        showFindings();
        get("main").hidden = get("transport").hidden = recording.length === 0;
        get("scrub").max = String(Math.max(1, recording.length));
        say("length", `of ${number.format(recording.length)}`);
        document.documentElement.dataset.opened = (performance.now() - started).toFixed(1);
    }

    function fail(text) {
        say("summary", text);
        get("summary").classList.add("failed");
        get("main").hidden = get("transport").hidden = true;
    }

    function showSummary() {
        const { recording } = now;
        const { totals } = recording;
        if (recording.length === 0) {
            fail("The recording is empty: the server has stopped before its first turn.");
            return;
        }
        get("summary").classList.remove("failed");
        const notes = [
            count(recording.lives.size, "connection"), count(recording.turns, "turn"), time(recording.duration),
            `${size(totals.bin)} in`, `${size(totals.bout)} out`,
        ];
        if (totals.lost > 0) notes.push(`${count(totals.lost, "record")} missing`);
        if (recording.damaged > 0) notes.push(`${count(recording.damaged, "line")} damaged or cut off`);
        say("summary", notes.join(" · "));
    }

    function showStory(source) {
        const { title, text } = source.dataset;
        say("name", plain(title ?? document.title, 120));
        get("story-text").hidden = !text;
        say("story-text", plain(text ?? "", 2000));
        get("stories").hidden = sources.length < 2;
        put("story-list", ...sources.map((other, at) => make("li", {}, make("a", {
            href: `#story=${at + 1}`, textContent: plain(other.dataset.title ?? `Recording ${at + 1}`, 120),
            attributes: at === now.story ? { "aria-current": "true" } : {},
        }))));
    }

    const address = (step) => (sources.length > 1 ? `#story=${now.story + 1}&step=${step}` : `#step=${step}`);

    // Opens what the address names. Without a step that is the worst moment.
    async function follow() {
        const wanted = new URLSearchParams(location.hash.slice(1));
        const story = Math.min(sources.length, Math.max(1, Number(wanted.get("story")) || 1)) - 1;
        if (now.recording === null || story !== now.story) await open(story);
        if (now.recording === null || now.recording.length === 0) return;
        const step = Math.floor(Number(wanted.get("step")));
        pause();
        show(step >= 1 ? step : now.recording.findings[0]?.moments[0]?.step ?? 1);
    }

    // The worst-first list.

    function showFindings() {
        const { findings } = now.recording;
        const none = make("p", { className: "quiet", textContent: "Nothing went wrong: no short write, no reset, no fault." });
        put("groups", ...findings.map((group, at) => findingGroup(group, at === 0 || !isNarrow())),
            findings.some(({ kind }) => kind !== "turn") ? null : none);
    }

    function findingGroup({ kind, count: total, moments }, isOpen) {
        const [name, text] = Words.GROUPS[kind];
        const links = moments.map((item, at) => findingLink(kind, item, at >= SHOWN_FIRST));
        const list = make("ol", {}, ...links);
        const rest = moments.length - SHOWN_FIRST;
        const more = rest > 0 ? make("button", { type: "button", className: "more", textContent: `${rest} more` }) : null;
        more?.addEventListener("click", () => {
            for (const link of links) link.hidden = false;
            links[SHOWN_FIRST].querySelector("a").focus();
            more.remove();
        });
        return make("details", { className: `finding kind-${kind}`, open: isOpen },
            make("summary", {}, name, make("span", { className: "count", textContent: number.format(total) })),
            make("p", { className: "quiet", textContent: text }), list, more);
    }

    function findingLink(kind, item, hidden) {
        const [subject, text] = Words.moment(kind, item);
        const link = make("a", { href: address(item.step) },
            subject && make("span", { className: "subject", textContent: subject }), make("span", { textContent: text }));
        link.dataset.step = String(item.step);
        return make("li", { hidden }, link);
    }

    // One step.

    // The connection of a step: that of its record, or of the last record before it that has one.
    function connectionAt(step) {
        const { records } = now.recording;
        for (let at = step - 1; at >= 0 && at > step - 300; at--) {
            if (records[at].c !== undefined) return records[at].c;
        }
        return null;
    }

    function show(step) {
        const { recording } = now;
        now.step = Math.max(1, Math.min(step, recording.length));
        const started = performance.now();
        now.state = recording.at(now.step);
        const { dataset } = document.documentElement;
        [dataset.seek, dataset.replayed] = [(performance.now() - started).toFixed(2), recording.replayed];
        if (!now.pinned || now.chosen === null) now.chosen = connectionAt(now.step) ?? now.chosen;
        schedule();
    }

    let scheduled = false;
    function schedule() {
        if (scheduled) return;
        scheduled = true;
        requestAnimationFrame(() => {
            scheduled = false;
            if (now.state) render();
        });
    }

    function render() {
        const { recording, state, step } = now;
        const record = recording.records[step - 1];
        Panels.showNow(now, record);
        Panels.showPhases(now);
        Panels.showConnection(now);
        Panels.showLoop(now);
        view.draw(step, now.chosen);
        view.drawMap(step);
        showLabels();
        const scrub = get("scrub");
        scrub.value = String(step);
        scrub.setAttribute("aria-valuetext", `step ${step} of ${recording.length}: ${Words.title(record)}`);
        if (document.activeElement !== get("step-input")) get("step-input").value = String(step);
        for (const link of document.querySelectorAll("#groups a")) {
            if (Number(link.dataset.step) === step) link.setAttribute("aria-current", "true");
            else link.removeAttribute("aria-current");
        }
        document.documentElement.dataset.step = String(state.step);
    }

    let labelled = "";
    function showLabels() {
        const { shown, rows, top } = view;
        say("lanes-note", rows.length > shown.length ?
            `${top + 1} to ${top + shown.length} of ${rows.length} that are open here` : `${rows.length} open here`);
        get("rows-up").disabled = top === 0;
        get("rows-down").disabled = top + shown.length >= rows.length;
        get("canvas").setAttribute("aria-label", `Lanes of ${count(shown.length, "connection")} around step ${now.step}; one column is one step`);
        const key = `${shown.map(({ id }) => id)}/${now.chosen}/${view.height}`;
        if (key === labelled) return;
        labelled = key;
        put("labels", make("span", { textContent: "loop" }), ...shown.map((life) => {
            const button = make("button", { type: "button", attributes: { "aria-pressed": String(life.id === now.chosen) } },
                `#${life.id}`, make("span", { className: "quiet", textContent: life.group === life.id ? plain(life.service ?? "", 12) : "to server" }));
            if (life.group !== life.id) button.className = "partner";
            button.style.height = `${view.height}px`;
            button.addEventListener("click", () => choose(life.id));
            return button;
        }));
    }

    // Moving.

    // Jumps are entries of the history; single steps replace the present one.
    function go(step, isJump = false) {
        show(step);
        const hash = address(now.step);
        if (isJump && location.hash !== hash) history.pushState(null, "", hash);
        else replaceSoon();
    }

    let replacing = null;
    function replaceSoon() {
        replacing ??= setTimeout(() => {
            replacing = null;
            history.replaceState(null, "", address(now.step));
        }, 250);
    }

    function move(unit, direction) {
        pause();
        const to = now.recording.next(now.step, unit, direction);
        if (to !== null) go(to);
    }

    function choose(id) {
        [now.chosen, now.pinned] = [id, true];
        schedule();
    }

    function togglePin() {
        now.pinned = !now.pinned && now.chosen !== null;
        if (!now.pinned) show(now.step);
        schedule();
    }

    function chooseNext(direction) {
        const ids = view.rows.map(({ id }) => id);
        const at = ids.indexOf(now.chosen);
        const id = ids[Math.max(0, Math.min(ids.length - 1, at + direction))];
        if (id !== undefined) choose(id);
    }

    function nextFinding(direction) {
        const links = [...document.querySelectorAll("#groups li:not([hidden]) a")];
        const at = links.findIndex((link) => link.hasAttribute("aria-current"));
        const link = links[at < 0 ? 0 : Math.max(0, Math.min(links.length - 1, at + direction))];
        if (!link) return;
        link.closest("details").open = true;
        link.scrollIntoView({ block: "nearest" });
        pause();
        go(Number(link.dataset.step), true);
    }

    // Playing.

    let played = { frame: 0, at: 0, credit: 0 };

    function play() {
        if (now.step >= now.recording.length) show(1);
        now.playing = true;
        played = { frame: requestAnimationFrame(tick), at: performance.now(), credit: 0 };
        say("play", "Pause");
    }

    function pause() {
        if (!now.playing) return;
        now.playing = false;
        cancelAnimationFrame(played.frame);
        say("play", "Play");
        schedule();
    }

    // The recorded microseconds that pass in one second on the screen.
    const speed = () => 1e6 * 10 ** Number(get("speed").value);

    function tick(at) {
        const { records } = now.recording;
        played.credit += Math.max(0, at - played.at) / 1000 * speed();
        played.at = at;
        let step = now.step;
        while (step < records.length) {
            const wait = Math.min(records[step].t - records[step - 1].t, FOLD * speed());
            if (wait > played.credit) break;
            played.credit -= wait;
            step += 1;
        }
        if (step !== now.step) go(step);
        if (step >= records.length) pause();
        else played.frame = requestAnimationFrame(tick);
    }

    function showSpeed() {
        const text = `1 s shows ${time(speed())}`;
        say("speed-text", text);
        get("speed").setAttribute("aria-valuetext", text);
    }

    function changeSpeed(by) {
        get("speed").value = String(Number(get("speed").value) + by);
        showSpeed();
    }

    // Controls.

    const toggle = () => (now.playing ? pause() : play());
    const jump = (step) => { pause(); go(step, true); };
    const zoom = (by) => { view.setZoom(by); schedule(); };
    const scroll = (by) => { view.top += by; schedule(); };

    const KEYS = {
        ArrowLeft: () => move(now.unit, -1), ArrowRight: () => move(now.unit, 1),
        " ": toggle, "+": () => changeSpeed(0.25), "-": () => changeSpeed(-0.25),
        n: () => nextFinding(1), p: () => nextFinding(-1), j: () => chooseNext(1), k: () => chooseNext(-1),
        f: togglePin, g: () => get("step-input").select(),
        Home: () => jump(1), End: () => jump(now.recording.length),
        "[": () => zoom(-1), "]": () => zoom(1), "?": () => get("help").showModal(),
    };
    for (const unit of ["step", "event", "call", "turn"]) {
        KEYS[unit[0]] = () => move(unit, 1);
        KEYS[unit[0].toUpperCase()] = () => move(unit, -1);
    }

    function onKey(event) {
        if (event.ctrlKey || event.metaKey || event.altKey || get("help").open || !now.state) return;
        const { target } = event;
        const isText = target.matches("#step-input");
        const isSlider = target.matches("input[type=range], input[type=radio]");
        const isPressed = event.key === " " && target.matches("button, summary, input, a");
        if (isText || isPressed || (isSlider && /^Arrow|^Home|^End/.test(event.key))) return;
        const action = KEYS[event.key];
        if (!action) return;
        event.preventDefault();
        action();
    }

    function connect() {
        const on = (id, type, action) => get(id).addEventListener(type, action);
        on("first", "click", () => jump(1));
        on("last", "click", () => jump(now.recording.length));
        on("back", "click", () => move(now.unit, -1));
        on("forward", "click", () => move(now.unit, 1));
        on("play", "click", toggle);
        on("pin", "change", togglePin);
        on("zoom-in", "click", () => zoom(1));
        on("zoom-out", "click", () => zoom(-1));
        on("rows-up", "click", () => scroll(-1));
        on("rows-down", "click", () => scroll(1));
        on("speed", "input", showSpeed);
        on("help-button", "click", () => get("help").showModal());
        on("scrub", "input", (event) => { pause(); go(Number(event.target.value)); });
        for (const radio of document.querySelectorAll("input[name=unit]")) {
            radio.addEventListener("change", () => { now.unit = radio.value; });
        }
        on("goto", "submit", (event) => {
            event.preventDefault();
            const step = Number(get("step-input").value.replace(/[^0-9]/g, ""));
            get("step-input").blur();
            if (step >= 1) jump(step);
            schedule();
        });
        on("canvas", "click", (event) => {
            const { step, id } = view.pick(event.offsetX, event.offsetY);
            if (id !== null) choose(id);
            jump(step);
        });
        for (const panel of ["loop", "connection"]) {
            on(panel, "click", ({ target: { dataset } }) => {
                if (dataset.connection !== undefined) choose(Number(dataset.connection));
            });
        }
        on("groups", "click", (event) => {
            const link = event.target.closest("a");
            if (!link) return;
            event.preventDefault();
            jump(Number(link.dataset.step));
            if (isNarrow()) get("now").scrollIntoView();
        });
        document.addEventListener("keydown", onKey);
        addEventListener("popstate", follow);
        addEventListener("resize", schedule);
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
            view.recolour();
            showLegend();
            schedule();
        });
    }

    function showLegend() {
        put("legend", ...Lanes.LEGEND.map(([, text]) => make("li", {}, make("canvas", { attributes: { "aria-hidden": "true" } }), text)));
        get("legend").querySelectorAll("canvas").forEach((canvas, at) => view.drawMark(canvas, Lanes.LEGEND[at][0]));
    }

    connect();
    showSpeed();
    follow().then(showLegend);
})();
