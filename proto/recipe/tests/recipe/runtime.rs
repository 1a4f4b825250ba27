//! What a runner does with a plan: expansion, paths, digests, reading what is stored.

use std::collections::BTreeMap;

use ovenbird_recipe::{
    Available, ExpandError, Plan, Source, Variable, env_apply, expand, parse, path_join,
};

fn plan(text: &str, healthcheck: Option<&str>) -> Plan {
    parse(&Source::from(text), healthcheck, Available::ALL).expect("a good recipe")
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn variable(key: &str, value: &str) -> Variable {
    Variable { key: key.to_owned(), value: value.to_owned() }
}

#[test]
fn variables_expand_once_and_unknown_ones_to_nothing() {
    let env = env(&[("A", "1"), ("AB", "2"), ("NESTED", "$A"), ("_x9", "3")]);
    for (template, text) in [
        ("$A ${A}b $AB", "1 1b 2"),
        ("$NESTED", "$A"),
        ("[$NONE]", "[]"),
        ("$$A $$$A", "$A $1"),
        ("$_x9-é", "3-é"),
        ("", ""),
    ] {
        assert_eq!(expand(template, &env).as_deref(), Ok(text), "{template}");
    }
    for (template, at) in [("a$", 1), ("${A", 0), ("é${}", 2), ("${A:-b}", 0), ("$1", 0)] {
        assert_eq!(expand(template, &env), Err(ExpandError::BadVariable { at }), "{template}");
    }
}

#[test]
fn later_variable_of_a_step_sees_the_earlier_ones() {
    let mut env = env(&[("PATH", "/bin")]);
    let variables = [variable("PATH", "/opt:$PATH"), variable("B", "$PATH:x")];
    env_apply(&variables, &mut env).expect("applies");
    assert_eq!(env["B"], "/opt:/bin:x");
}

#[test]
fn variables_that_double_each_other_meet_a_bound() {
    let mut env = env(&[("A", &"x".repeat(1024))]);
    let doubling = vec![variable("A", "$A$A"); 200];
    assert_eq!(env_apply(&doubling, &mut env), Err(ExpandError::TooLong));
    let many: Vec<_> = (0..64).map(|n| variable(&format!("B{n}"), "$A")).collect();
    assert_eq!(env_apply(&many, &mut env), Err(ExpandError::EnvironmentTooLarge));
}

#[test]
fn path_is_joined_to_the_current_directory_without_dots() {
    for (current, path, joined) in [
        ("/", "srv", "/srv"),
        ("/srv", "app/", "/srv/app"),
        ("/srv/app", "../x/./y", "/srv/x/y"),
        ("/srv", "/opt", "/opt"),
        ("/srv", "../../..", "/"),
        ("/srv", ".", "/srv"),
    ] {
        assert_eq!(path_join(current, path), joined);
    }
}

#[test]
fn digests_stay_what_they_are() {
    let plan = plan("ENV A=1\nRUN make", Some("true"));
    assert_eq!(plan.digest(), "9e501dfb2ad3be9c4ab9733a839fd70834d579dd79168bee441adffaf84647bf");
    assert_eq!(
        plan.step_digests(None),
        [
            "7cddccc5efe385e4f40a5d54dc08c8084fc2fc63b22acaba9fe979167be148f2",
            "070f621c9200980f547110b032e5db4b328b647f68ddc924adf955d155ca8a10"
        ]
    );
}

#[test]
fn step_digest_depends_on_all_steps_before_and_on_no_time_limit() {
    let base = plan("RUN a\nRUN b\nRUN c", None);
    let late = plan("RUN a\nRUN b\nRUN x", None);
    let early = plan("RUN x\nRUN b\nRUN c", None);
    let limits = plan("RUN --timeout=1m a\n# same\nRUN --retries=2 b\nRUN c", Some("true"));
    assert_eq!(base.step_digests(None)[..2], late.step_digests(None)[..2]);
    assert_ne!(base.step_digest(3, None), late.step_digest(3, None));
    assert_ne!(base.step_digest(3, None), early.step_digest(3, None));
    assert_eq!(base.step_digests(None), limits.step_digests(None));
    assert_ne!(base.digest(), limits.digest());
    assert_eq!(base.step_digest(2, None).as_ref(), base.step_digests(None).get(1));
    assert_eq!((base.step_digest(0, None), base.step_digest(4, None)), (None, None));
}

#[test]
fn plan_of_another_version_is_refused_and_unknown_fields_are_ignored() {
    let mut stored = serde_json::to_value(plan("RUN true", None)).expect("serializes");
    stored["steps"][0]["later"] = true.into();
    stored["later"] = true.into();
    assert!(serde_json::from_value::<Plan>(stored.clone()).is_ok());
    stored["v"] = 2.into();
    let error = serde_json::from_value::<Plan>(stored).expect_err("a version of the future");
    assert_eq!(error.to_string(), "plan version 2 is not known here (known: 1)");
}

#[test]
fn hostile_submission_of_two_megabytes_is_answered_in_time() {
    let started = std::time::Instant::now();
    let line = format!("ENV{}\n", " $".repeat(30_000));
    let words = format!("COPY{}\n", " a".repeat(30_000));
    let joined = format!("RUN a{}\n", "\\\n b".repeat(15_000));
    for text in [line.repeat(30), words.repeat(30), joined.repeat(30), "x\n".repeat(1_000_000)] {
        let _ = parse(&Source::from(text), None, Available::ALL);
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn digest_of_a_copy_depends_on_its_context_and_that_of_a_step_before_it_does_not() {
    let plan = plan("RUN a\nCOPY a /b\nRUN c", None);
    let (one, other) = (plan.step_digests(Some("1")), plan.step_digests(Some("2")));
    assert_eq!(one[0], other[0]);
    assert_ne!(one[1], other[1]);
    assert_ne!(one[2], other[2]);
}
