//! The form of labels, as hosts have them and builds ask for them. A schema cannot say it.

use std::sync::LazyLock;

use ovenbird_db::store::host::Labels;
use regex::Regex;

use crate::app::Problem;

/// Labels of one host or build.
const LABELS_MAX: usize = 16;

static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$").expect("the pattern is one")
});
static VALUE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[A-Za-z0-9._-]{0,63}$").expect("the pattern is one"));

/// What is wrong with `labels`, the field of that name.
pub fn problems(labels: &Labels) -> Vec<Problem> {
    let problem = |message: String| Problem::new("labels", "wrong_form", message);
    if labels.len() > LABELS_MAX {
        let message = format!("has {} labels; there may be {LABELS_MAX}", labels.len());
        return vec![Problem::new("labels", "wrong_length", message)];
    }
    let mut found = Vec::new();
    for (name, value) in labels {
        if !NAME.is_match(name) {
            found.push(problem(format!(
                "the name {name:?} must be 1 to 63 of a-z, 0-9, and between them . _ / -"
            )));
        } else if !VALUE.is_match(value) {
            found.push(problem(format!("{name} must be at most 63 of A-Z, a-z, 0-9, . _ -")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> usize {
        problems(&labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
            .len()
    }

    #[test]
    fn names_and_values_have_a_form_and_there_are_few() {
        assert_eq!(of(&[("zone", "b"), ("example.org/disk", "NVMe-2"), ("gpu", "")]), 0);
        assert_eq!(of(&[("", "b"), ("Zone", "b"), ("-a", "b"), ("a", "b c"), ("b", "é")]), 5);
        let many: Labels = (0..17).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(problems(&many)[0].code, "wrong_length");
    }
}
