//! What a process tells Prometheus: asked for, and held against a golden list.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::wait_for;

const ANSWER: Duration = Duration::from_secs(60);

/// Where a process serves metrics, as it says in its log (`metrics are served address=…`), waited for.
///
/// # Errors
/// When it does not say so in time.
pub async fn address(log: &Path) -> anyhow::Result<String> {
    wait_for("the address of metrics in the log", ANSWER, || async {
        let text = std::fs::read_to_string(log).ok()?;
        let line = text.lines().find(|line| line.contains("metrics are served"))?;
        let rest = line.split_once("address=").or_else(|| line.split_once(r#""address":""#))?.1;
        Some(rest.split(['"', ' ']).next()?.trim().to_owned())
    })
    .await
}

/// What a process answers to a plain GET.
///
/// # Errors
/// When it answers otherwise than with 200, or not in time.
pub async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let asked = async {
        let mut connection = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Ok(body.to_owned())
    };
    tokio::time::timeout(ANSWER, asked).await.context("no answer in time")?
}

/// The value of one series, such as `builds{status="running"}`, labels in any order.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let wanted = parts(series);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut found = lines.filter_map(|line| line.rsplit_once(' '));
    found.find(|(series, _)| parts(series) == wanted)?.1.parse().ok()
}

/// Name and sorted labels.
fn parts(series: &str) -> (&str, Vec<&str>) {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    (name, labels)
}

/// Every metric with its type and labels, a line each, sorted, as golden lists have them.
///
/// # Panics
/// When the text is not as Prometheus wants it: this one is for tests.
pub fn names(text: &str) -> String {
    let mut found: BTreeMap<&str, (&str, Vec<&str>)> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a type is a word of its own");
        found.insert(name, (kind, Vec::new()));
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, rest)) = line.split_once('{') else { continue };
        let name = ["_total", "_bucket", "_sum", "_count"]
            .iter()
            .find_map(|ending| series.strip_suffix(ending))
            .unwrap_or(series);
        let labels = rest.rsplit_once('}').expect("labels have an end").0.split("\",");
        let labels = labels
            .map(|label| label.split_once('=').expect("a label has a value").0)
            .filter(|label| *label != "le");
        let known = &mut found.get_mut(name).unwrap_or_else(|| panic!("no type of {line}")).1;
        known.extend(labels);
        known.sort_unstable();
        known.dedup();
    }
    found.iter().fold(String::new(), |text, (name, (kind, labels))| {
        let words: Vec<_> = [*name, *kind].into_iter().chain(labels.iter().copied()).collect();
        text + &words.join(" ") + "\n"
    })
}

/// Metrics without a word of what they are.
pub fn undescribed(text: &str) -> Vec<&str> {
    let described: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
        .filter(|(_, help)| help.trim_end_matches('.').len() > 5)
        .map(|(name, _)| name)
        .collect();
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| !described.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a What is counted.\n# TYPE a counter\n\
                        a_total{x=\"1\",y=\"2\"} 3\n# TYPE b gauge\nb 4\n# EOF\n";

    #[test]
    fn what_is_told_is_read_whatever_the_order_of_labels() {
        assert_eq!(value(TEXT, r#"a_total{y="2",x="1"}"#), Some(3.0));
        assert_eq!(value(TEXT, "b"), Some(4.0));
        assert_eq!(value(TEXT, "a_total"), None);
        assert_eq!(names(TEXT), "a counter x y\nb gauge\n");
        assert_eq!(undescribed(TEXT), ["b"]);
    }
}
