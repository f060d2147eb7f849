//! Objects of JSON, to be written and never read.

/// An object that is being written. Keys are ours and need no escaping.
#[derive(Debug)]
pub struct Object(String);

impl Object {
    pub fn new() -> Object {
        Object(String::from("{"))
    }

    /// What one command has to say of a service at an address.
    pub fn about(service: &str, addr: impl ToString) -> Object {
        Object::new().raw("v", 1).text("service", service).text("addr", &addr.to_string())
    }

    /// The value is JSON already.
    pub fn raw(mut self, key: &str, value: impl ToString) -> Object {
        let comma = if self.0.len() > 1 { "," } else { "" };
        self.0.push_str(&format!("{comma}\"{key}\":{}", value.to_string()));
        self
    }

    pub fn text(self, key: &str, value: &str) -> Object {
        self.raw(key, string(value.as_bytes()))
    }

    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// As a line of its own.
    pub fn line(self) -> String {
        self.end() + "\n"
    }
}

/// What is JSON already, as a list.
pub fn list(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

/// A string of JSON; what is not UTF-8 is replaced.
pub fn string(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
