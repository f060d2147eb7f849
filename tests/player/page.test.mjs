// The page's policy, and its table of places in the core.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { page, policy, read, stories } from "./assemble.mjs";
import { synthesize } from "./synthetic.mjs";

const { PLACES } = createRequire(import.meta.url)("../../src/record/player/words.js");
const ROOT = new URL("../../", import.meta.url);

test("each_place_of_the_core_has_its_function_its_anchor_and_its_line", () => {
    assert.ok(Object.keys(PLACES).length > 20);
    for (const [key, [file, name, anchor, line]] of Object.entries(PLACES)) {
        assert.ok(existsSync(new URL(file, ROOT)), `${key}: ${file} is missing; name the file that replaces it`);
        const text = readFileSync(new URL(file, ROOT), "utf8");
        const advice = "; adapt PLACES in src/record/player/words.js";
        assert.match(text, new RegExp(`\\bfn ${name}\\b`), `${key}: ${file} has no function ${name}${advice}`);
        assert.match(text, new RegExp(`// ANCHOR: ${anchor}$`, "m"), `${key}: ${file} has no anchor ${anchor}${advice}`);
        const flat = text.replace(/\s+/g, " ");
        assert.ok(flat.includes(line), `${key}: ${file} has no line "${line}"${advice}`);
    }
});

test("the_policy_allows_the_present_scripts_and_style_and_nothing_else", () => {
    const found = read("index.html").match(/http-equiv="Content-Security-Policy" content="([^"]*)"/);
    assert.equal(found?.[1], policy(), "run `node tests/player/assemble.mjs --hashes`");
    assert.doesNotMatch(policy(), /unsafe|https?:|\*|data:|blob:/);
});

test("the_page_has_no_address_no_inline_handler_and_no_markup_from_strings", () => {
    const text = page("a title", synthesize(50)).replace(/id="recording">[^<]*/, "");
    assert.doesNotMatch(text, /\b(?:https?|ws):\/\//);
    assert.doesNotMatch(text, /\son[a-z]+=|style="/);
    assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function/);
    assert.doesNotMatch(text, /\/\*[a-z]+\.(?:css|js)\*\/|<!--[A-Z]+-->/);
});

test("hostile_titles_cannot_leave_their_place", () => {
    const hostile = '</title></script><script>alert("1")</script>$&';
    const recording = synthesize(50);
    for (const text of [page(hostile, recording), stories(hostile, [{ title: hostile, text: hostile, recording }])]) {
        assert.ok(!text.includes("<script>alert"));
        assert.ok(text.includes("&#60;/title&#62;"));
    }
});
