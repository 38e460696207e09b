//! The page: one file, no external resources, light and dark.

mod activations;
mod memory;
mod mixed;
mod summary;

use std::fmt::Write as _;

use super::{Report, Value, numbers};

/// Text with the characters that HTML gives a meaning replaced.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let name = escape(&report.model.name);
    let style = include_str!("page.css");
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{name}: quantization report</title>\n<style>\n{style}</style></head>\n<body><main>\n<h1>{name}</h1>\n"
    );
    summary::model(&mut out, report);
    summary::scores(&mut out, report);
    summary::warnings(&mut out, report);
    summary::layers(&mut out, report);
    if let Some(mixed) = &report.mixed {
        mixed::mixed(&mut out, mixed);
    }
    activations::table(&mut out, report);
    activations::histograms(&mut out, report);
    activations::weights(&mut out, report);
    memory::memory(&mut out, report);
    summary::made(&mut out, report);
    out.push_str("</main></body></html>\n");
    out
}

fn heading(out: &mut String, title: &str) {
    let _ = writeln!(out, "<h2>{title}</h2>");
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".into())
}

fn values(values: &[Value]) -> String {
    let all: Vec<String> =
        values.iter().map(|value| format!("{} {}", code(&value.name), numbers::shape(&value.shape))).collect();
    all.join(", ")
}

/// A table; its first `text_columns` columns are text, the others numbers. Cells are HTML.
fn rows(out: &mut String, text_columns: usize, head: &[&str], body: impl IntoIterator<Item = Vec<String>>) {
    let class = |i: usize| if i < text_columns { " class=\"text\"" } else { "" };
    out.push_str("<div class=\"scroll\"><table><thead><tr>");
    for (i, cell) in head.iter().enumerate() {
        let _ = write!(out, "<th{}>{cell}</th>", class(i));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in body {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{cell}</td>", class(i));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }

    #[test]
    fn tables_align_numbers() {
        let mut out = String::new();
        rows(&mut out, 1, &["layer", "SQNR"], [vec![code("a<b"), "3 dB".into()]]);
        assert!(out.contains("<td class=\"text\"><code>a&lt;b</code></td><td>3 dB</td>"), "{out}");
    }
}
