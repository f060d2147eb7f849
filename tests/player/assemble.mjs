// Puts the player's page together, as `campanile play --html` does, and prints it.
// `node tests/player/assemble.mjs RECORDING` makes the page of one recording; with more than one it
// makes a page of stories. `--hashes` writes the hashes of the scripts and the style into the policy.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const FOLDER = new URL("../../src/record/player/", import.meta.url);
const PARTS = [
    "player.css", "state.js", "decoder.js", "words.js", "lanes.js", "panels.js", "player.js",
];

export const read = (name) => readFileSync(new URL(name, FOLDER), "utf8");

export function hashOf(name) {
    return `sha256-${createHash("sha256").update(read(name)).digest("base64")}`;
}

const escape = (text) =>
    text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);

const pack = (text) => gzipSync(text).toString("base64");

// A replacement is a function, because `$&` in a string would be expanded.
export function template() {
    return PARTS.reduce((page, name) => page.replace(`/*${name}*/`, () => read(name)), read("index.html"));
}

export function page(title, recording) {
    return template().replace("<!--TITLE-->", () => escape(title))
        .replace("<!--RECORDING-->", () => pack(recording));
}

// Each story has a title, a text and a recording.
export function stories(title, list) {
    const scripts = list.map(({ title, text, recording }) =>
        `<script type="application/octet-stream" class="recording" data-title="${escape(title)}" data-text="${
            escape(text)}">${pack(recording)}</script>`);
    return template().replace("<!--TITLE-->", () => escape(title))
        .replace(/<script type="application\/octet-stream" id="recording">.*?<\/script>/s, () => scripts.join("\n"));
}

// Returns the policy with the hashes of the present files.
export function policy() {
    const scripts = PARTS.filter((name) => name.endsWith(".js")).map((name) => `'${hashOf(name)}'`);
    return `default-src 'none'; script-src ${scripts.join(" ")}; style-src '${
        hashOf("player.css")}'; base-uri 'none'; form-action 'none'`;
}

const POLICY = /(<meta http-equiv="Content-Security-Policy" content=")[^"]*/;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const files = process.argv.slice(2);
    if (files[0] === "--hashes") {
        writeFileSync(new URL("index.html", FOLDER), read("index.html").replace(POLICY, (_, start) => start + policy()));
    } else if (files.length === 1) {
        process.stdout.write(page(basename(files[0]), readFileSync(files[0], "utf8")));
    } else {
        process.stdout.write(stories("Stories", files.map((file) => {
            const recording = readFileSync(file, "utf8");
            const { title = basename(file), text = "" } = JSON.parse(recording.slice(0, recording.indexOf("\n")));
            return { title, text, recording };
        })));
    }
}
