//! A recording as one page, which a browser opens without a server and without a request.

use std::io::{self, Write};

use campanile::record::base64;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::timeline::is_invisible;

/// The player. Each of its parts stands in it by name, as a comment.
const TEMPLATE: &str = include_str!("../../record/player/index.html");
const PARTS: [(&str, &str); 7] = [
    ("/*player.css*/", include_str!("../../record/player/player.css")),
    ("/*state.js*/", include_str!("../../record/player/state.js")),
    ("/*decoder.js*/", include_str!("../../record/player/decoder.js")),
    ("/*words.js*/", include_str!("../../record/player/words.js")),
    ("/*lanes.js*/", include_str!("../../record/player/lanes.js")),
    ("/*panels.js*/", include_str!("../../record/player/panels.js")),
    ("/*player.js*/", include_str!("../../record/player/player.js")),
];
const TITLE: &str = "<!--TITLE-->";
const RECORDING: &str =
    "<script type=\"application/octet-stream\" id=\"recording\"><!--RECORDING--></script>";

/// A recording of a page.
#[derive(Debug)]
pub struct Story {
    pub title: String,
    pub text: Option<String>,
    /// Its lines.
    pub recording: Vec<u8>,
}

/// Returns the page of one recording or of several. They are embedded as base64, in which no text can
/// end the element that holds it.
pub fn render(title: &str, stories: &[Story]) -> io::Result<String> {
    let mut page = String::from(TEMPLATE);
    for (name, part) in PARTS {
        page = page.replacen(name, part, 1);
    }
    let place = if stories.len() == 1 { "id" } else { "class" };
    let mut elements = String::new();
    for Story { title, text, recording } in stories {
        let mut zip = GzEncoder::new(Vec::new(), Compression::best());
        zip.write_all(recording)?;
        elements += &format!("<script type=\"application/octet-stream\" {place}=\"recording\"");
        for (key, value) in [("title", Some(title)), ("text", text.as_ref())] {
            if let Some(value) = value {
                elements += &format!(" data-{key}=\"{}\"", escape(value));
            }
        }
        elements.push('>');
        base64::encode(&mut elements, &zip.finish()?);
        elements.push_str("</script>\n");
    }
    page = page.replacen(TITLE, &escape(title), 1);
    Ok(page.replacen(RECORDING, elements.trim_end(), 1))
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
    fn hostile_text_neither_ends_its_element_nor_reaches_the_page_unescaped() {
        let hostile = "</script><!--RECORDING--><!--TITLE-->\0\u{202e}\"'&amp;";
        let story = || Story {
            title: hostile.into(),
            text: Some(hostile.into()),
            recording: hostile.into(),
        };
        let (one, three) =
            (render(hostile, &[story()]), render(hostile, &[story(), story(), story()]));
        let (one, three) = (one.unwrap(), three.unwrap());
        assert_eq!(three.matches("</script>").count(), one.matches("</script>").count() + 2);
        let title = one.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
        assert!(title.starts_with("&lt;/script&gt;&lt;!--"), "{title}");
        assert!(title.ends_with("\u{fffd}\u{fffd}&quot;&#39;&amp;amp;"), "{title}");
        for (page, place) in [(&one, "id"), (&three, "class")] {
            assert!(!page.contains(['\0', '\u{202e}']) && !page.contains("<!--RECORDING"));
            assert!(PARTS.iter().all(|(name, part)| !page.contains(name) && page.contains(part)));
            let opening =
                format!("<script type=\"application/octet-stream\" {place}=\"recording\"");
            let (_, element) = page.split_once(&opening).unwrap();
            let (attributes, element) = element.split_once('>').unwrap();
            let expected = format!(" data-title=\"{title}\" data-text=\"{title}\"");
            assert_eq!(attributes, expected);
            let mut unzipped = String::new();
            let bytes = base64::decode(element.split_once("</script>").unwrap().0).unwrap();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut unzipped).unwrap();
            assert_eq!(unzipped, hostile);
        }
    }
}
