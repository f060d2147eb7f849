//! Writes JSON objects.

/// A JSON object under construction. Its keys are literals of this program and need no escaping.
#[derive(Debug)]
pub struct Object(String);

impl Object {
    pub fn new() -> Object {
        Object(String::from("{"))
    }

    /// The result of one command about a service at an address.
    pub fn about(service: &str, addr: impl ToString) -> Object {
        Object::new().raw("v", 1).text("service", service).text("addr", &addr.to_string())
    }

    /// Adds a value that is JSON already.
    pub fn raw(mut self, key: &str, value: impl ToString) -> Object {
        let comma = if self.0.len() > 1 { "," } else { "" };
        self.0.push_str(&format!("{comma}\"{key}\":{}", value.to_string()));
        self
    }

    /// Adds a string.
    pub fn text(self, key: &str, value: &str) -> Object {
        self.raw(key, string(value.as_bytes()))
    }

    /// Ends the object.
    pub fn end(self) -> String {
        self.0 + "}"
    }

    /// Ends the object, as a line of its own.
    pub fn line(self) -> String {
        self.0 + "}\n"
    }
}

/// A JSON list of values that are JSON already.
pub fn list(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

/// A JSON string. Bytes that are not UTF-8 are replaced.
pub fn string(bytes: &[u8]) -> String {
    let mut text = String::new();
    campanile::record::push_string(&mut text, &String::from_utf8_lossy(bytes));
    text
}
