//! What holds for every submission, however odd.

use ovenbird_recipe::{Action, Available, Entry, Plan, Source, Variable, limits, parse};
use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value};

use crate::corpus::assert_positions_are_inside;

/// Text made of what the language gives a meaning to, so that it is often almost right.
fn almost_recipe() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        8 => prop::sample::select(vec![
            "RUN ", "START ", "ENV ", "WORKDIR ", "USER ", "COPY ", "run ", "FROM ", "# ", "{", "}",
            "{\"type\":\"RUN\",\"args\":[\"x\"]}", "--timeout=5m ", "--retries=2 ", "--secret=A ",
            "--sudo ", "--chown=a:b ", "--interval=1s ", "--start-period=1m ", "--", "=", "A=1 ",
            "A=\"b c\" ", "$A", "${A}", "${", "$$", "$", "\"", "'", "\\", "\\\n", "\n", "\r\n", "\r",
            "\0", " ", "\t", "\u{a0}", "\u{feff}", "a", "ä", "/srv/x ", "../", "😀",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    vec(token, 0..30).prop_map(|tokens| tokens.concat())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        almost_recipe().prop_map(Value::from),
        prop::sample::select(vec!["RUN", "ENV", "COPY", "USER", "5m", "1"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((field(), inner), 0..4).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "type", "args", "timeout", "retries", "secret", "sudo", "chown", "tpye",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn object() -> impl Strategy<Value = Value> {
    let keyword =
        prop::sample::select(vec!["RUN", "START", "ENV", "WORKDIR", "USER", "COPY", "run"]);
    let args = vec(prop_oneof![any::<String>(), almost_recipe(), Just("A=b".to_owned())], 0..4);
    (keyword, args, vec((field(), json()), 0..3)).prop_map(|(keyword, args, fields)| {
        let mut object = Map::from_iter(fields);
        object.insert("type".to_owned(), keyword.into());
        object.insert("args".to_owned(), args.into());
        Value::Object(object)
    })
}

fn submission() -> impl Strategy<Value = Source> {
    let entry = prop_oneof![
        almost_recipe().prop_map(Entry::Line),
        object().prop_map(Entry::from),
        json().prop_map(Entry::from),
    ];
    prop_oneof![
        almost_recipe().prop_map(Source::Text),
        any::<String>().prop_map(Source::Text),
        vec(entry, 0..6).prop_map(Source::List),
    ]
}

/// A word that is right more often than not: any text in single quotes, or plain.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z./${}\\\\\" ]{1,8}".prop_map(|text| format!("'{text}'")),
        "[a-z./]{1,8}",
        "\\$[A-Z]{1,3}[a-z]{0,3}".prop_map(|text| format!("\"x{text}\"y")),
    ]
}

/// A step that is accepted.
fn good_step() -> impl Strategy<Value = Value> {
    prop_oneof![
        ("[^\0]{0,40}", 1_u64..3_600_000, 0_u32..=10).prop_map(|(command, ms, retries)| {
            serde_json::json!({"type": "RUN", "args": ["echo", command, "end"],
                "timeout": format!("{ms}ms"), "retries": retries})
        }),
        "[ -~]{0,40}".prop_map(|command| Value::from(format!("START a{command}z"))),
        vec(("[A-Z]{1,4}", word()), 1..4).prop_map(|pairs| {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            Value::from(format!("ENV {}", pairs.join(" ")))
        }),
        "[^\0$]{1,20}".prop_map(|value| {
            serde_json::json!({"type": "ENV", "args": [format!("A={value}")]})
        }),
        word().prop_map(|path| Value::from(format!("WORKDIR {path}"))),
        "[a-z_][a-z0-9_-]{0,31}".prop_map(|name| Value::from(format!("USER --sudo {name}"))),
        ("[a-z][a-z ]{0,5}", word())
            .prop_map(|(from, to)| Value::from(format!("COPY --chown=a:1 '{from}' {to}"))),
    ]
}

fn read_back(plan: &Plan) -> Result<Plan, Vec<ovenbird_recipe::Diagnostic>> {
    let healthcheck = plan.healthcheck.as_ref().map(ToString::to_string);
    parse(&Source::from(plan.lines().join("\n")), healthcheck.as_deref(), Available::ALL)
}

fn check(source: &Source, healthcheck: Option<&str>) {
    match parse(source, healthcheck, Available::ALL) {
        Ok(plan) => assert_eq!(read_back(&plan).as_ref(), Ok(&plan)),
        Err(found) => assert_positions_are_inside(source, healthcheck, &found),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_submission_gives_a_plan_that_reads_back_or_diagnostics_inside_it(
        source in submission(),
        healthcheck in prop::option::of(almost_recipe()),
    ) {
        check(&source, healthcheck.as_deref());
    }

    #[test]
    fn submission_of_any_json_is_read_and_never_panics(value in json()) {
        if let Ok(source) = serde_json::from_value::<Source>(value) {
            check(&source, None);
        }
    }

    #[test]
    fn good_recipe_is_accepted_and_printing_and_parsing_give_the_same_plan(
        steps in vec(good_step(), 1..8),
        command in "[a-z][^\0]{0,20}[a-z]",
        (interval, retries) in (100_u64..20_000, 1_u32..100),
    ) {
        let source = Source::from(steps);
        let healthcheck = format!("--interval={interval}ms --retries={retries} {command}");
        let plan = parse(&source, Some(&healthcheck), Available::ALL);
        let plan = plan.map_err(|found| TestCaseError::fail(format!("{found:#?}")))?;
        let again = read_back(&plan);
        prop_assert_eq!(again.as_ref(), Ok(&plan));
        for (step, number) in plan.steps.iter().zip(1..) {
            prop_assert_eq!(step.number, number);
        }
        let check = plan.healthcheck.as_ref().expect("given");
        prop_assert_eq!(check.deadline_ms, u64::from(retries) * (interval + 10_000));
        prop_assert!(plan.lines().iter().all(|line| line.len() <= limits::LINE_BYTES_MAX));
    }

    #[test]
    fn quoted_value_means_itself_when_it_runs(value in "[^\0\n']{0,30}") {
        let source = Source::from(vec![format!("ENV A='{value}'")]);
        let plan = parse(&source, None, Available::ALL);
        let plan = plan.map_err(|found| TestCaseError::fail(format!("{found:#?}")))?;
        let Action::Env { variables } = &plan.steps[0].action else { panic!("ENV") };
        let mut env = std::collections::BTreeMap::new();
        ovenbird_recipe::env_apply(variables, &mut env).expect("applies");
        prop_assert_eq!(&env["A"], &value);
    }

    #[test]
    fn expansion_never_panics_and_leaves_text_without_dollars_alone(text in any::<String>()) {
        let env = std::collections::BTreeMap::from([("A".to_owned(), "$B".to_owned())]);
        let expanded = ovenbird_recipe::expand(&text, &env);
        if !text.contains('$') {
            prop_assert_eq!(expanded.as_ref(), Ok(&text));
        }
        let variable = Variable { key: "A".to_owned(), value: text };
        let _ = ovenbird_recipe::env_apply(&[variable], &mut env.clone());
    }
}
