#![no_main]
#![allow(dead_code)]

#[path = "../../../src/cli/json.rs"]
mod json;
#[path = "../../../src/cli/play/perfetto.rs"]
mod perfetto;
#[path = "../playing.rs"]
mod playing;
#[path = "../../../src/cli/play/recording.rs"]
mod recording;
#[path = "../../../src/cli/play/timeline.rs"]
mod timeline;
#[path = "../../common/traces.rs"]
mod traces;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    playing::recordings(file);
});
