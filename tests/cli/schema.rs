//! As much of JSON Schema as `tests/schema/events.json` uses, and no more: an unknown word in a
//! schema is a failure, so that nothing is taken for checked that is not.

use serde_json::Value;

/// A line of the program, as JSON that the schema allows.
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
                other => panic!("the schema says type {other}"),
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
                // Keys may be added, but not without the schema.
                let known = rule.as_object().unwrap();
                value.as_object().unwrap().keys().all(|key| known.contains_key(key))
            }
            "oneOf" => {
                let rules = rule.as_array().unwrap().iter();
                rules.filter(|rule| check(rule, value).is_ok()).count() == 1
            }
            other => panic!("the schema says {other}, which nobody checks"),
        };
        if !is_met {
            return Err(format!("{word}: {rule} is not met by {value}"));
        }
    }
    Ok(())
}

#[test]
fn the_schema_refuses_what_it_should() {
    checked(r#"{"v":1,"event":"stopped"}"#);
    for wrong in [
        r#"{"v":2,"event":"stopped"}"#,
        r#"{"v":1,"event":"begun"}"#,
        r#"{"v":1,"event":"fault"}"#,
        r#"{"v":1,"event":"fault","fault":""}"#,
        r#"{"v":1,"event":"fault","fault":3}"#,
        r#"{"v":1,"event":"stopped","more":1}"#,
        "[]",
    ] {
        assert!(std::panic::catch_unwind(|| checked(wrong)).is_err(), "{wrong}");
    }
}
