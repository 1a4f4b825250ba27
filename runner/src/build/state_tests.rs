//! Properties of the build's state, and the cases that need names.

use ovenbird_recipe::Variable;
use proptest::prelude::*;

use super::*;

fn action() -> impl Strategy<Value = Action> {
    let value = prop_oneof![Just("x"), Just("$A"), Just("${PATH}:/opt"), Just("$$")];
    prop_oneof![
        (0u32..3).prop_map(|retries| Action::Run {
            command: "make".into(),
            timeout_ms: 1000,
            retries,
            secrets: Vec::new(),
        }),
        Just(Action::Start { command: "serve".into() }),
        ("[A-C]", value).prop_map(|(key, value)| Action::Env {
            variables: vec![Variable { key, value: value.into() }],
        }),
        prop_oneof![Just("/srv"), Just("app"), Just("..")]
            .prop_map(|path| Action::Workdir { path: path.into() }),
        prop_oneof![Just("app"), Just("$A")]
            .prop_map(|name| Action::User { name: name.into(), sudo: false }),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    (proptest::collection::vec(action(), 1..8), any::<bool>())
        .prop_map(|(actions, health)| plan_of(actions, health))
}

fn plan_of(actions: Vec<Action>, health: bool) -> Plan {
    let step = |(number, action): (u32, Action)| Step {
        number,
        cmd: format!("{} …", action.keyword()),
        action,
    };
    let healthcheck = health.then(|| Healthcheck {
        command: "true".into(),
        interval_ms: 100,
        timeout_ms: 100,
        start_period_ms: 0,
        retries: 3,
        deadline_ms: 600,
    });
    Plan { v: 1, steps: (1..).zip(actions).map(step).collect(), healthcheck }
}

fn state(plan: Plan) -> State {
    let base = Base {
        name: "minimal".into(),
        host_name: "minimal".into(),
        default_env: BTreeMap::from([("A".into(), "a".into())]),
        default_user: None,
    };
    State::new(plan, &base, 3)
}

fn failed(code: ReasonCode) -> Event {
    Event::Failed { code, message: "exit 1".into(), tail: None }
}

/// The answer to `next`, good or bad.
fn answer(next: &Next, good: bool) -> Event {
    match next {
        Next::Boot { .. } if good => Event::Ready,
        Next::Boot { .. } => Event::NotReady("panic".into()),
        Next::Step(work) => match &work.task {
            Task::Impossible { code, message } => {
                Event::Failed { code: *code, message: message.clone(), tail: None }
            }
            _ if good => Event::StepPassed,
            _ => failed(ReasonCode::StepFailed),
        },
        Next::Health(..) if good => Event::Healthy,
        Next::Health(..) => failed(ReasonCode::HealthFailed),
        Next::Publish(_) if good => Event::Written(1),
        Next::Publish(_) => failed(ReasonCode::PublishFailed),
        Next::Over(_) => unreachable!("asked only before the end"),
    }
}

proptest! {
    #[test]
    fn every_step_passes_once_in_order_before_anything_is_published(
        plan in plan(),
        luck in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let total = u32::try_from(plan.steps.len()).unwrap();
        let health = plan.healthcheck.is_some();
        let mut state = state(plan);
        let (mut boots, mut passed, mut tries, mut checked) = (0u32, 0u32, 0u32, false);
        let mut luck = luck.into_iter().chain(std::iter::repeat(true));
        for _ in 0..200 {
            let next = state.next();
            match &next {
                Next::Boot { nth, pause } => {
                    boots += 1;
                    prop_assert!(*nth == boots && boots <= 3 && passed == 0);
                    prop_assert_eq!(pause.is_zero(), boots == 1);
                }
                Next::Step(work) => {
                    prop_assert_eq!(work.number, passed + 1);
                    tries += 1;
                    prop_assert_eq!(work.nth, tries);
                    prop_assert_eq!(work.pause.is_zero(), tries == 1);
                }
                Next::Health(..) => prop_assert!(health && passed == total),
                Next::Publish(kind) => {
                    prop_assert_eq!(passed, total);
                    prop_assert_eq!(checked, health);
                    prop_assert_eq!(*kind == TemplateKind::Snapshot, health);
                }
                Next::Over(end) => {
                    if end.is_ok() {
                        prop_assert!(passed == total && checked == health);
                    }
                    prop_assert!(state.apply(Event::Ready).is_err());
                    return Ok(());
                }
            }
            let event = answer(&next, luck.next().unwrap_or(true));
            match &event {
                Event::StepPassed => { passed += 1; tries = 0; }
                Event::Healthy => checked = true,
                _ => {}
            }
            prop_assert!(state.apply(event).is_ok());
        }
        prop_assert!(false, "the build did not end");
    }

    /// From any point of any build, another runner does what the first one would have done.
    #[test]
    fn resumed_build_goes_on_as_if_nothing_had_happened(
        plan in plan(),
        luck in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let mut first = state(plan.clone());
        let mut luck = luck.into_iter().chain(std::iter::repeat(true));
        let mut reached = Reached { steps_done: 0, step_try: 1, healthy: false, failed: None };
        let (mut started, mut ready) = (Vec::new(), false);
        for _ in 0..200 {
            let next = first.next();
            if let Next::Over(end) = &next {
                reached.failed = end.clone().err();
                if reached.failed.is_some() {
                    let second = State::resumed(plan.clone(), &first.base, 3, reached);
                    prop_assert_eq!(second.next(), next);
                }
                return Ok(());
            }
            if let (true, Next::Step(work)) = (ready, &next) {
                reached.step_try = work.nth;
            }
            if ready {
                let second = State::resumed(plan.clone(), &first.base, 3, reached.clone());
                prop_assert_eq!(second.next(), next.clone());
                prop_assert_eq!(&second.context, &first.context);
                let numbers: Vec<u32> = second.started().iter().map(|work| work.number).collect();
                prop_assert_eq!(numbers, started.clone());
            }
            let event = answer(&next, luck.next().unwrap_or(true));
            match (&event, &next) {
                (Event::Ready, _) => ready = true,
                (Event::StepPassed, Next::Step(work)) => {
                    reached.steps_done = work.number;
                    reached.step_try = 1;
                    if matches!(work.task, Task::Start { .. }) {
                        started.push(work.number);
                    }
                }
                (Event::Healthy, _) => reached.healthy = true,
                _ => {}
            }
            first.apply(event).unwrap();
        }
        prop_assert!(false, "the build did not end");
    }

    #[test]
    fn event_that_is_no_answer_changes_nothing(plan in plan(), steps in 0usize..6) {
        let mut state = state(plan);
        for _ in 0..steps {
            let next = state.next();
            if matches!(next, Next::Over(_)) {
                break;
            }
            state.apply(answer(&next, true)).unwrap();
        }
        for event in [Event::Ready, Event::StepPassed, Event::Healthy, Event::Written(1)] {
            let before = state.clone();
            if state.apply(event).is_err() {
                prop_assert_eq!(before.next(), state.next());
            }
            state = before;
        }
    }
}

fn walk(actions: Vec<Action>) -> (State, Vec<Work>) {
    let mut state = state(plan_of(actions, false));
    let mut done = Vec::new();
    loop {
        let next = state.next();
        match &next {
            Next::Over(_) => return (state, done),
            Next::Step(work) => done.push(work.as_ref().clone()),
            _ => {}
        }
        state.apply(answer(&next, true)).unwrap();
    }
}

#[test]
fn environment_directory_and_user_hold_for_later_steps_and_for_the_template() {
    let run = Action::Run { command: "id".into(), timeout_ms: 5, retries: 0, secrets: Vec::new() };
    let variable = |key: &str, value: &str| Variable { key: key.into(), value: value.into() };
    let (state, done) = walk(vec![
        Action::Env { variables: vec![variable("PATH", "/opt:$PATH"), variable("B", "$A$A")] },
        Action::Workdir { path: "/srv/$A".into() },
        Action::Workdir { path: "app".into() },
        Action::User { name: "web".into(), sudo: false },
        Action::Workdir { path: "$HOME/x".into() },
        run,
    ]);
    let context = &done[5].context;
    assert_eq!(context.env["PATH"], format!("/opt:{GUEST_PATH}"));
    assert_eq!(context.env["B"], "aa");
    assert!(!context.env.contains_key("HOME"));
    assert_eq!(done[3].context.workdir.as_deref(), Some("/srv/a/app"));
    assert_eq!(context.workdir.as_deref(), Some("/home/web/x"));
    assert_eq!(context.user.as_deref(), Some("web"));
    let Next::Over(end) = state.next() else { panic!("not over") };
    let published = end.unwrap();
    assert_eq!(
        (published.kind, published.default_user.as_deref()),
        (TemplateKind::Image, Some("web"))
    );
    assert_eq!(published.default_env["A"], "a");
}

#[test]
fn copy_is_expanded_and_relative_to_the_directory_of_its_step() {
    let copy = |source: &str, destination: &str| Action::Copy {
        sources: vec![source.into()],
        destination: destination.into(),
        owner: None,
    };
    let variable = Variable { key: "DIR".into(), value: "app".into() };
    let (_, done) = walk(vec![
        Action::Env { variables: vec![variable] },
        Action::Workdir { path: "/srv".into() },
        copy("$DIR/*.c", "$DIR"),
        copy("a", "."),
        copy("a", "/opt/$DIR/"),
        copy("a", "/"),
    ]);
    let destinations: Vec<_> = done[2..]
        .iter()
        .map(|work| match &work.task {
            Task::Copy(copying) => (copying.sources[0].as_str(), copying.destination.as_str()),
            task => panic!("{task:?}"),
        })
        .collect();
    let expected = [("app/*.c", "/srv/app"), ("a", "/srv/"), ("a", "/opt/app/"), ("a", "/")];
    assert_eq!(destinations, expected);
    let (state, _) = walk(vec![copy("$HOME", "/x")]);
    let Next::Over(end) = state.next() else { panic!("not over") };
    assert!(end.unwrap_err().message.contains("outside of the context"));
}

#[test]
fn what_is_not_available_fails_with_its_step() {
    let secrets = vec!["TOKEN".into()];
    let run = Action::Run { command: "x".into(), timeout_ms: 5, retries: 0, secrets };
    let (state, _) = walk(vec![Action::Env { variables: Vec::new() }, run]);
    let Next::Over(end) = state.next() else { panic!("not over") };
    let reason = end.unwrap_err();
    assert_eq!((reason.code, reason.step), (ReasonCode::Unsupported, Some(2)));
}

#[test]
fn broken_host_is_not_tried_again_as_a_step() {
    let run = Action::Run { command: "x".into(), timeout_ms: 5, retries: 5, secrets: Vec::new() };
    let mut state = state(plan_of(vec![run], false));
    state.apply(Event::Ready).unwrap();
    state.apply(failed(ReasonCode::HostLost)).unwrap();
    assert!(matches!(state.next(), Next::Over(_)));
}

#[test]
fn last_boot_that_fails_ends_the_build_with_the_console() {
    let mut state = state(plan_of(vec![Action::Start { command: "x".into() }], true));
    for n in 0..3 {
        state.apply(Event::NotReady(format!("console {n}"))).unwrap();
    }
    let Next::Over(end) = state.next() else { panic!("not over") };
    let reason = end.unwrap_err();
    assert_eq!(reason.code, ReasonCode::GuestNotReady);
    assert_eq!(reason.tail.as_deref(), Some("console 2"));
}

#[test]
fn pauses_between_tries_grow_to_their_bound() {
    let pauses: Vec<u64> = (1..=9).map(|nth| retry_pause(nth).as_secs()).collect();
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
}
