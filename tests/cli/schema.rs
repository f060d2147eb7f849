//! The part of JSON Schema that `tests/schema/events.json` uses. An unknown keyword in the schema
//! fails, so that no rule is left unchecked.

use serde_json::Value;

/// Parses a line of the program, and checks it against the schema.
pub fn checked(line: &str) -> Value {
    let schema: Value = serde_json::from_str(include_str!("../schema/events.json")).unwrap();
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    if let Err(what) = check(&schema, &value) {
        panic!("{line}: {what}");
    }
    value
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    for (word, rule) in schema.as_object().unwrap() {
        let is_met = match word.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("the schema has the type {other}: check it here"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= rule.as_f64(),
            "minLength" => value.as_str().is_some_and(|s| s.len() as u64 >= rule.as_u64().unwrap()),
            "required" => {
                let mut keys = rule.as_array().unwrap().iter();
                keys.all(|key| value.get(key.as_str().unwrap()).is_some())
            }
            "items" => {
                for item in value.as_array().unwrap() {
                    check(rule, item)?;
                }
                true
            }
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(part) = value.get(key) {
                        check(rule, part).map_err(|what| format!("{key}: {what}"))?;
                    }
                }
                // A key that the schema does not describe fails.
                let known = rule.as_object().unwrap();
                value.as_object().unwrap().keys().all(|key| known.contains_key(key))
            }
            "oneOf" => {
                let rules = rule.as_array().unwrap().iter();
                rules.filter(|rule| check(rule, value).is_ok()).count() == 1
            }
            other => panic!("the schema has the keyword {other}: check it here"),
        };
        if !is_met {
            return Err(format!("{word}: {rule} is not met by {value}"));
        }
    }
    Ok(())
}

#[test]
fn the_schema_refuses_wrong_events() {
    checked(r#"{"v":1,"event":"stopped"}"#);
    checked(r#"{"v":1,"event":"lost","count":1}"#);
    checked(r#"{"v":1,"event":"listed","count":0}"#);
    checked(r#"{"v":1,"event":"fault","id":3,"fault":"echo: reset"}"#);
    checked(r#"{"v":1,"event":"accepted","service":"own","id":1,"peer":"unix:"}"#);
    for wrong in [
        r#"{"v":2,"event":"stopped"}"#,
        r#"{"v":1,"event":"begun"}"#,
        r#"{"v":1,"event":"fault"}"#,
        r#"{"v":1,"event":"fault","fault":"echo: reset"}"#,
        r#"{"v":1,"event":"fault","id":0,"fault":"echo: reset"}"#,
        r#"{"v":1,"event":"fault","id":3,"fault":""}"#,
        r#"{"v":1,"event":"fault","id":3,"fault":3}"#,
        r#"{"v":1,"event":"cleared"}"#,
        r#"{"v":1,"event":"advanced","by_us":5}"#,
        r#"{"v":1,"event":"accepted","service":"","id":1,"peer":"unix:"}"#,
        r#"{"v":1,"event":"stopped","more":1}"#,
        r#"{"v":1,"event":"lost"}"#,
        r#"{"v":1,"event":"lost","count":0}"#,
        "[]",
    ] {
        assert!(std::panic::catch_unwind(|| checked(wrong)).is_err(), "{wrong}");
    }
}
