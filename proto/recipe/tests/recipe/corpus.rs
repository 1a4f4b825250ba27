//! Reads `corpus/{accepted,refused}`: each `.txt` is a text form (its first line may be
//! `# healthcheck: …`), each `.json` a `{"recipe":…,"healthcheck":…,"without":["copy","secrets"]}`; beside
//! each stands `<file>.expected`, the plan or the diagnostics as JSON.
//!
//! `OVENBIRD_CORPUS=write` writes the expected files anew; look at the difference before keeping it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ovenbird_recipe::{Available, Code, Diagnostic, Entry, Part, Plan, Source, limits, parse};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    recipe: Source,
    healthcheck: Option<String>,
    #[serde(default)]
    without: Vec<String>,
}

impl Case {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("corpus file");
        if file.extension().is_some_and(|extension| extension == "json") {
            return serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        let first = text.lines().next().unwrap_or_default();
        let healthcheck = first.strip_prefix("# healthcheck: ").map(str::to_owned);
        Self { recipe: Source::Text(text), healthcheck, without: Vec::new() }
    }

    fn parse(&self) -> Result<Plan, Vec<Diagnostic>> {
        let has = |what: &str| !self.without.iter().any(|without| without == what);
        let available = Available { copy: has("copy"), secrets: has("secrets") };
        parse(&self.recipe, self.healthcheck.as_deref(), available)
    }
}

fn cases(folder: &str) -> BTreeMap<PathBuf, Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
    let files = fs::read_dir(folder).expect("corpus folder");
    let cases: BTreeMap<_, _> = files
        .map(|file| file.expect("corpus entry").path())
        .filter(|file| file.extension().is_some_and(|end| end == "txt" || end == "json"))
        .map(|file| (file.clone(), Case::read(&file)))
        .collect();
    assert!(!cases.is_empty(), "the corpus is where it should be");
    cases
}

fn compare<T: serde::Serialize>(file: &Path, found: &T) {
    let found = serde_json::to_string_pretty(found).expect("serializes") + "\n";
    let expected = PathBuf::from(format!("{}.expected", file.display()));
    if std::env::var_os("OVENBIRD_CORPUS").is_some_and(|mode| mode == "write") {
        fs::write(&expected, &found).expect("expected file is written");
    }
    let expected = fs::read_to_string(&expected).unwrap_or_default();
    assert!(found == expected, "{} gives now:\n{found}", file.display());
}

/// The lines that positions refer to.
pub(crate) fn source_lines(source: &Source) -> Vec<String> {
    let lines = |text: &str| -> Vec<String> {
        text.strip_suffix('\n').unwrap_or(text).split('\n').map(str::to_owned).collect()
    };
    match source {
        Source::Text(text) => lines(text),
        Source::List(entries) => entries
            .iter()
            .flat_map(|entry| match entry {
                Entry::Line(text) => lines(text),
                Entry::Object(_) | Entry::Other(_) => vec![String::new()],
            })
            .collect(),
    }
}

pub(crate) fn assert_positions_are_inside(
    source: &Source,
    healthcheck: Option<&str>,
    found: &[Diagnostic],
) {
    let recipe = source_lines(source);
    let health: Vec<_> = healthcheck.unwrap_or_default().split('\n').map(str::to_owned).collect();
    assert!(!found.is_empty());
    for diagnostic in found {
        let lines = match diagnostic.part {
            Part::Recipe => &recipe,
            Part::Healthcheck => &health,
        };
        let line = usize::try_from(diagnostic.line).expect("fits") - 1;
        let text = lines.get(line).map_or("", String::as_str);
        assert!(line < lines.len().max(1), "{diagnostic}");
        let column = usize::try_from(diagnostic.column).expect("fits");
        assert!((1..=text.chars().count() + 1).contains(&column), "{diagnostic} in {text:?}");
        assert!(!diagnostic.hint.is_empty() && !diagnostic.message.is_empty());
    }
}

#[test]
fn accepted_submission_gives_its_plan_and_reads_back_from_print() {
    for (file, case) in cases("accepted") {
        let plan = case.parse().unwrap_or_else(|found| panic!("{}: {found:#?}", file.display()));
        compare(&file, &plan);
        let printed = Source::from(plan.lines());
        let healthcheck = plan.healthcheck.as_ref().map(ToString::to_string);
        assert_eq!(parse(&printed, healthcheck.as_deref(), Available::ALL).as_ref(), Ok(&plan));
        let stored = serde_json::to_string(&plan).expect("serializes");
        assert_eq!(serde_json::from_str::<Plan>(&stored).expect("reads back"), plan);
    }
}

#[test]
fn refused_submission_gives_all_its_diagnostics_inside_the_source() {
    for (file, case) in cases("refused") {
        let found = case.parse().expect_err(&file.display().to_string());
        assert_positions_are_inside(&case.recipe, case.healthcheck.as_deref(), &found);
        compare(&file, &found);
    }
}

#[test]
fn text_and_object_of_one_name_give_one_plan() {
    let cases = cases("accepted");
    let mut pairs = 0;
    for (file, case) in &cases {
        if let Some(other) = cases.get(&file.with_extension("json"))
            && file.extension().is_some_and(|extension| extension == "txt")
        {
            assert_eq!(case.parse(), other.parse(), "{}", file.display());
            pairs += 1;
        }
    }
    assert!(pairs >= 3);
}

/// Submissions too large for a file.
fn generated() -> [(Code, Source); 3] {
    let steps = limits::STEPS_MAX + 1;
    [
        (Code::TooManySteps, Source::from(vec!["RUN true".to_owned(); steps])),
        (Code::LineTooLong, Source::from(format!("RUN {}", "x".repeat(limits::LINE_BYTES_MAX)))),
        (Code::TooManyErrors, Source::from(format!("ENV{}", " 1".repeat(1000)))),
    ]
}

#[test]
fn submission_over_a_bound_is_refused_with_its_code() {
    for (code, source) in generated() {
        let found = parse(&source, None, Available::ALL).expect_err("over a bound");
        assert_eq!(found.last().map(|diagnostic| diagnostic.code), Some(code));
        assert!(found.len() <= limits::DIAGNOSTICS_MAX);
        assert_positions_are_inside(&source, None, &found);
    }
    let steps = Source::from(vec!["RUN true".to_owned(); limits::STEPS_MAX]);
    assert!(parse(&steps, None, Available::ALL).is_ok());
    let line = Source::from(format!("RUN {}", "x".repeat(limits::LINE_BYTES_MAX - 4)));
    assert!(parse(&line, None, Available::ALL).is_ok());
}

#[test]
fn every_code_has_a_refused_submission_and_a_stable_word() {
    let mut seen: BTreeSet<Code> = generated().into_iter().map(|(code, _)| code).collect();
    for case in cases("refused").values() {
        let found = case.parse().expect_err("refused");
        seen.extend(found.iter().map(|diagnostic| diagnostic.code));
    }
    assert_eq!(seen, Code::ALL.iter().copied().collect());
    for code in Code::ALL {
        let word = serde_json::to_value(code).expect("serializes");
        assert_eq!(word, code.as_str());
        assert_eq!(serde_json::from_value::<Code>(word).expect("reads back"), *code);
    }
    let words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(
        words.join(" "),
        "empty_recipe too_many_steps too_many_errors line_too_long nul_character \
         dangling_continuation unterminated_quote bad_object unknown_field unknown_step \
         missing_argument too_many_arguments unknown_flag duplicate_flag bad_flag misplaced_flag \
         bad_duration duration_out_of_bounds bad_number number_out_of_bounds bad_env_key \
         missing_env_value bad_variable bad_path bad_user_name bad_chown bad_secret_name \
         too_many_secrets start_without_healthcheck copy_not_available secret_not_available"
    );
}

#[test]
fn every_expected_file_belongs_to_a_submission() {
    for folder in ["accepted", "refused"] {
        let cases = cases(folder);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
        for file in fs::read_dir(path).expect("corpus folder") {
            let file = file.expect("corpus entry").path();
            assert!(cases.contains_key(&file.with_extension("")) || cases.contains_key(&file));
        }
    }
}
