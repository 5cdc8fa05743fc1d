//! How deep HTML nests, found without parsing it: a parser looks through what is open at every tag, so a hostile page of
//! nothing but open tags takes it minutes. Near enough for a limit that no page for people comes near.

/// Elements with no inside, or that end by themselves where the next one begins.
const SHALLOW: [&str; 31] = [
    "area", "base", "body", "br", "col", "colgroup", "dd", "dt", "embed", "head", "hr", "html", "img", "input", "li",
    "link", "meta", "option", "p", "param", "source", "tbody", "td", "tfoot", "th", "thead", "tr", "track", "wbr",
    "frame", "keygen",
];
/// Elements whose inside is text.
const TEXTS: [&str; 4] = ["script", "style", "textarea", "title"];
/// Elements inside which every other one nests.
const FOREIGN: [&str; 2] = ["svg", "math"];
const NAME_BYTES_MAX: usize = 16;

/// The most elements that are open at a time.
pub fn depth(html: &[u8]) -> usize {
    let (mut open, mut foreign, mut most) = (0usize, 0usize, 0);
    let mut rest = html;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        rest = &rest[at + 1..];
        if rest.starts_with(b"!--") {
            rest = after(rest, b"-->");
            continue;
        }
        let ends = rest.first() == Some(&b'/');
        let name = name(&rest[usize::from(ends)..]);
        if name.is_empty() {
            continue;
        }
        let is = |names: &[&str]| names.contains(&name.as_str());
        if ends {
            foreign = foreign.saturating_sub(usize::from(is(&FOREIGN)));
        } else if foreign == 0 && is(&TEXTS) {
            rest = after(rest, format!("</{name}").as_bytes());
            continue;
        }
        let has_end = foreign > 0 && rest.iter().position(|byte| *byte == b'>').is_some_and(|at| rest[at - 1] == b'/');
        if has_end || (foreign == 0 && is(&SHALLOW)) {
            continue;
        }
        open = if ends { open.saturating_sub(1) } else { open + 1 };
        foreign += usize::from(!ends && is(&FOREIGN));
        most = most.max(open);
    }
    most
}

/// The lowercase name at the beginning, as far as it matters.
fn name(tag: &[u8]) -> String {
    if !tag.first().is_some_and(u8::is_ascii_alphabetic) {
        return String::new();
    }
    let letters = tag.iter().take(NAME_BYTES_MAX).take_while(|byte| byte.is_ascii_alphanumeric());
    letters.map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// What comes after the first `end`, in any case; nothing without one.
fn after<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let found = text.windows(end.len()).position(|window| window.eq_ignore_ascii_case(end));
    found.map_or(&[], |at| &text[at + end.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_at_a_time_is_counted_and_nothing_else() {
        let many = |part: &str| part.repeat(1_000);
        for (html, expected) in [
            (String::new(), 0),
            ("<html><body><div><p>a<p>b<br><ul><li>c<li>d</ul></div>".into(), 2),
            (many("<DIV class='x'>"), 1_000),
            (many("<div></div>"), 1),
            (many("<p>one<li>two<td>three<img src=x>"), 0),
            (many("<!-- <div> -->"), 0),
            (format!("<script>{}</SCRIPT><b>x</b>", many("'<div>'")), 1),
            (many("a < b <3 "), 0),
            (format!("<svg>{}</svg>", many("<path d='M0'/>")), 1),
            (format!("<svg>{}", many("<td>")), 1_001),
            (format!("<svg></svg>{}", many("<td>")), 1),
            (format!("<!--{}", many("<div>")), 0),
            (many("</div>"), 0),
        ] {
            assert_eq!(depth(html.as_bytes()), expected, "{}", &html[..html.len().min(60)]);
        }
    }
}
