//! The rules of the Chrome trace event format ("Trace Event Format", Google, 2016) for the kinds of
//! events that `campanile play --perfetto` writes.

use std::collections::HashMap;

use serde_json::Value;

/// Checks a trace, and returns its events.
pub fn check(text: &[u8]) -> Vec<Value> {
    let trace: Value = serde_json::from_slice(text).expect("a trace is JSON");
    assert!(matches!(trace["displayTimeUnit"].as_str(), Some("ms" | "ns")));
    let events = trace["traceEvents"].as_array().expect("a trace has events");
    // By thread, the time of the last event and the open slices; by category and id, the open spans.
    let (mut times, mut slices) = (HashMap::new(), HashMap::<_, Vec<Value>>::new());
    let mut spans = HashMap::<_, Vec<Value>>::new();
    for event in events {
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("no {key}: {event}"));
        let thread = (number("pid"), number("tid"));
        let name = &event["name"];
        let args = &event["args"];
        assert!(args.is_null() || args.is_object(), "{event}");
        let phase = event["ph"].as_str().expect("an event has a phase");
        assert!(name.is_string() || phase == "E", "no name: {event}");
        if phase != "M" {
            let last = times.insert(thread, number("ts"));
            assert!(last.unwrap_or(0) <= number("ts"), "time runs backwards: {event}");
        }
        match phase {
            "B" => slices.entry(thread).or_default().push(name.clone()),
            "E" => {
                let begun = slices.get_mut(&thread).and_then(Vec::pop);
                let begun = begun.unwrap_or_else(|| panic!("it ends nothing: {event}"));
                assert!(name.is_null() || *name == begun, "{event} ends {begun}");
            }
            "b" | "e" => {
                let span = (event["cat"].as_str().expect("a category").to_owned(), number("id"));
                let open = spans.entry(span).or_default();
                match phase {
                    "b" => open.push(name.clone()),
                    _ => assert_eq!(open.pop().as_ref(), Some(name), "{event}"),
                }
            }
            "i" => assert!(matches!(event["s"].as_str(), Some("g" | "p" | "t")), "{event}"),
            "C" => {
                let series = args.as_object().expect("a counter has series");
                assert!(!series.is_empty() && series.values().all(Value::is_number), "{event}");
            }
            "M" => {
                assert!(matches!(name.as_str(), Some("process_name" | "thread_name")), "{event}");
                assert!(args["name"].is_string(), "{event}");
            }
            _ => panic!("unknown phase: {event}"),
        }
    }
    assert!(slices.values().all(Vec::is_empty), "open slices: {slices:?}");
    assert!(spans.values().all(Vec::is_empty), "open spans: {spans:?}");
    events.clone()
}
