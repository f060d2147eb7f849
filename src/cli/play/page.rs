//! A recording as one page, which a browser opens without a server and without a request.

use std::io::{self, Write};

use campanile::record::base64;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::timeline::is_invisible;

/// The player. Its title and its recording are placeholders.
const TEMPLATE: &str = include_str!("../../record/player/index.html");
const TITLE: &str = "<!--TITLE-->";
const RECORDING: &str = "<!--RECORDING-->";

/// Returns the page of a recording. The recording is embedded as base64, in which no text can end the
/// element that holds it.
pub fn render(title: &str, recording: &[u8]) -> io::Result<String> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    zip.write_all(recording)?;
    let mut text = String::new();
    base64::encode(&mut text, &zip.finish()?);
    let page = TEMPLATE.replacen(TITLE, &escape(title), 1);
    Ok(page.replacen(RECORDING, &text, 1))
}

/// Escapes a text for HTML. Characters that are not seen are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() || is_invisible(c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn hostile_text_neither_ends_its_element_nor_reaches_the_title_unescaped() {
        let hostile = "</script><!--RECORDING--><!--TITLE-->\0\u{202e}\"'&amp;";
        let page = render(hostile, hostile.as_bytes()).unwrap();
        let scripts = TEMPLATE.matches("</script>").count();
        assert_eq!(page.matches("</script>").count(), scripts);
        let title = page.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
        assert!(title.contains("&lt;/script&gt;"), "{title}");
        assert!(title.ends_with("\u{fffd}\u{fffd}&quot;&#39;&amp;amp;"), "{title}");
        assert!(!page.contains(['\0', '\u{202e}']));
        let opening = "<script type=\"application/octet-stream\" id=\"recording\">";
        let text = page.split_once(opening).unwrap().1.split_once("</script>").unwrap().0;
        let mut unzipped = String::new();
        let bytes = base64::decode(text).unwrap();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut unzipped).unwrap();
        assert_eq!(unzipped, hostile);
    }
}
